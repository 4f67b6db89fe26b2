"""Logs of the processes that run on: one line an event, as text or as JSON, to stderr, and never with a secret in it.

Secrets are taken out of the finished line, so that it does not matter how they came into it: as an argument, in a URL, in
a traceback. What they look like is known of most; the others are told to `setup` by their values.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import unquote

if TYPE_CHECKING:
    from qala.config import Config

__all__ = ["Redactor", "known_secrets", "setup", "speak"]

_HIDDEN = "[secret]"
_SECRET_MIN = 6  # shorter ones would be found in innocent words
_FILE_MAX = 4096  # bytes that a file with a secret has at most
_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), _HIDDEN),
    (re.compile(r"(?<![A-Za-z0-9_-])([a-z2-7]{8})\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"), rf"\1.{_HIDDEN}"),
    (re.compile(r"(?i)(authorization[\"']?\s*[:=,]\s*b?[\\\"']*(?:[a-z][\w-]*\s+)?)[^\s\"'\\,)}\]]+"), rf"\1{_HIDDEN}"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1{_HIDDEN}"),
    (re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@\"']*:)[^\s/@\"']+@"), rf"\1{_HIDDEN}@"),
    (re.compile(r"(?i)\b((?:__Host-)?qala=)[A-Za-z0-9._-]{16,}"), rf"\1{_HIDDEN}"),
    (re.compile(r"(?i)([?&;](?:[\w-]*(?:token|passw(?:or)?d|secret|api_?key))=)[^\s&;\"']+"), rf"\1{_HIDDEN}"),
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_log = logging.getLogger("qala")


class Redactor:
    """Takes secrets out of text: those of known looks, and those whose values are given."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        values = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1]) if len(form) >= _SECRET_MIN}
        longest_first = sorted(values, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, longest_first))) if values else None

    def clean(self, text: str) -> str:
        """Return a text without secrets.

        >>> Redactor(["hunter22"]).clean("http://city:pass@host/?token=abc said hunter22")
        'http://city:[secret]@host/?token=[secret] said [secret]'
        """
        if self._values is not None:
            text = self._values.sub(_HIDDEN, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text


class _Text(logging.Formatter):
    """Lines for people: level, logger, message, and the fields after it."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self.redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line, _, trace = super().format(record).partition("\n")
        return self.redactor.clean(line + fields + ("\n" + trace if trace else ""))


class _Json(logging.Formatter):
    """Lines for programs: one JSON object an event."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "fields": _fields(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            event["exception"] = self.formatException(record.exc_info)
        clean = _cleaned(event, self._redactor)
        return json.dumps(clean, ensure_ascii=False, default=str)


def setup(form: str, level: str, *, secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Send the logs of this process to stderr as "text" or "json", from a level on; what nothing caught goes there too."""
    redactor = Redactor(secrets)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json(redactor) if form == "json" else _Text(redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def speak(text: str) -> bool:
    """Say something for people to read, where a log is set up, which as JSON has it as an event; tell whether it is."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Json):
            _log.info("%s", text)
            return True
        if isinstance(handler.formatter, _Text) and isinstance(handler, logging.StreamHandler):
            print(handler.formatter.redactor.clean(text), file=handler.stream, flush=True)
            return True
    return False


def known_secrets(config: Config) -> list[str]:
    """Collect the values of secrets in a configuration, and of the files that it names for them."""
    store, analytics = config.store, config.analytics
    files = [store.token_file, *(broker.password_file for broker in config.ingest.brokers.values())]
    urls = [str(analytics.webhook or ""), config.state_url]
    return [
        *filter(None, [store.token.get_secret_value()]),
        *(password for url in urls for password in _passwords(url)),
        *(path.read_bytes()[:_FILE_MAX].decode(errors="replace").strip() for path in files if path and path.is_file()),
    ]


def _passwords(url: str) -> list[str]:
    """Return the password in a URL, as it is written and as it is meant.

    >>> _passwords("postgresql://qala:p%40ss@db/qala")
    ['p%40ss', 'p@ss']
    """
    found = re.match(r"[^:/?#]+://[^/@:]*:([^/@]+)@", url)
    return [] if found is None else [found[1], unquote(found[1])]


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _cleaned(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, dict):
        return {str(name): _cleaned(each, redactor) for name, each in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    return redactor.clean(str(value))


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _log.critical("nothing caught %s", kind.__name__, exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "a thread"
    error = args.exc_value or args.exc_type()
    _log.critical("%s ended by %s", name, args.exc_type.__name__, exc_info=(args.exc_type, error, args.exc_traceback))


def _unraisable(found: Any) -> None:
    kind = found.exc_type
    _log.error("%s in %r", kind.__name__, found.object, exc_info=(kind, found.exc_value or kind(), found.exc_traceback))
