"""The door's gate over the state: every valid credential in memory, asked without waiting, renewed by a thread.

A token opens for the principal that it was issued to; a client certificate for the device that its CN names. Who is not
in the registry may come (it becomes a candidate there); who was retired from it may not.
"""

from __future__ import annotations

import hmac
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from devices.errors import CorruptError, QalaError, UnavailableError
from ingest.gate import Principal, RefusedError
from ingest.mqtt.wire import Code
from qala.state import registry
from qala.state.credentials import (
    Credential,
    CredentialKind,
    changed_since,
    digest,
    is_device_name,
    last_change,
    split,
)
from qala.state.database import state_reader

__all__ = ["Keyring", "key_file", "make_key", "read_key"]

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
_RECHECK_S = 30.0  # certificates end by themselves, and nothing tells
_PATIENCE = 3  # looks in a row that may fail before it is spoken of: a first start makes the state meanwhile
_CERTIFICATE = "certificate "
_KEY_BYTES = 32
_NOBODYS_SECRET = "A" * 43
_NO_DIGEST = bytes(_KEY_BYTES)


class Keyring:
    """Implements `ingest.gate.Gate`. Asked by the event loop; `look` is for one thread of its own.

    `trouble` says why what is known may be old, empty: it is not.
    """

    def __init__(
        self, state_url: str, data: Path, *, topic_root: str, now_us: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        self.trouble = ""
        self._engine = state_reader(state_url)
        self._state_file = Path(state_url.removeprefix("sqlite:///")) if state_url.startswith("sqlite:") else None
        self._failures = 0
        self._key_file = key_file(data)
        self._topic_root = topic_root
        self._now_us = now_us
        self._key = os.urandom(_KEY_BYTES)  # until there is one, no token is right
        self._has_key = False
        self._known = _Known()
        self._upto = (0, 0)  # the last change of credentials, and of devices
        self._next_end_us = 0
        self._stop = threading.Event()

    # ---- what the event loop asks

    def authenticate(
        self, username: str | None, password: bytes | None, certificate: Mapping[str, Any] | None
    ) -> Principal:
        """Return who shows a user name and a token, or a certificate that was verified; who shows both needs both.

        Without a user name the token alone says who it is. Raises RefusedError, whose message holds no secret.
        """
        if not certificate:
            return self._of_token(username, password)
        device, validity_us = self._of_certificate(certificate)
        if username not in {None, device}:
            raise RefusedError(f"the certificate of {device!r} came with another user name")
        if password is None:
            shown = f"{_CERTIFICATE}{certificate.get('serialNumber', '')}"
            return Principal(device, shown, self._filters(device, ()), validity_us)
        return msgspec.structs.replace(self._of_token(device, password), certified_us=validity_us)

    def still_holds(self, principal: Principal) -> bool:
        """Tell whether what a principal showed is neither revoked nor expired, and the device not retired."""
        name = principal.name
        if not name or name.startswith("@"):
            return True
        if self._is_retired(name):
            return False
        if principal.certified_us is not None and not self._is_certified(name, principal.certified_us):
            return False
        if principal.credential.startswith(_CERTIFICATE):
            return True
        token = self._known.tokens.get(principal.credential)
        return token is not None and token.until_us > self._now_us()

    def _of_token(self, username: str | None, password: bytes | None) -> Principal:
        """Return whose token it is. What is wrong with it makes no difference in time: always one HMAC and one comparison."""
        id_, secret = split((password or b"").decode("ascii", "replace")) or ("", _NOBODYS_SECRET)
        token = self._known.tokens.get(id_)
        is_right = hmac.compare_digest(digest(self._key, secret), token.digest if token else _NO_DIGEST)
        if token is None or not is_right or username not in {None, token.principal}:
            raise RefusedError(
                "a credential that is none" if password else "no credential", answer=Code.BAD_CREDENTIALS
            )
        if token.until_us <= self._now_us():
            raise RefusedError(f"the token {id_} of {token.principal!r} has expired", answer=Code.BAD_CREDENTIALS)
        self._check_retired(token.principal)
        return Principal(token.principal, id_, self._filters(token.principal, token.filters))

    def _of_certificate(self, certificate: Mapping[str, Any]) -> tuple[str, tuple[int, int]]:
        """Return the device that a certificate names, and from when to when it holds [us]."""
        names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
        if len(names) != 1 or not is_device_name(names[0]):
            raise RefusedError("a certificate whose CN is no device")
        begin_us, end_us = (ssl.cert_time_to_seconds(certificate[key]) * 1_000_000 for key in ("notBefore", "notAfter"))
        if not self._is_certified(names[0], (begin_us, end_us)):
            raise RefusedError(f"a certificate of {names[0]!r} that was revoked or has expired")
        self._check_retired(names[0])
        return names[0], (begin_us, end_us)

    def _is_certified(self, device: str, validity_us: tuple[int, int]) -> bool:
        return self._known.barred.get(device, 0) <= validity_us[0] and self._now_us() <= validity_us[1]

    def _is_retired(self, name: str) -> bool:
        until_us = self._known.retired.get(name)
        return until_us is not None and until_us <= self._now_us()

    def _check_retired(self, name: str) -> None:
        if self._is_retired(name):
            raise RefusedError(f"{name!r} was retired from the registry")

    def _filters(self, name: str, given: tuple[str, ...]) -> tuple[str, ...]:
        """Return where a principal may publish: a device on its own native topics, and on those that its token names."""
        return (f"{self._topic_root}/1/{name}/+", *given) if is_device_name(name) else given

    # ---- what the thread does

    def start(self, on_change: Callable[[], None]) -> None:
        """Learn all there is, then go on in a thread; `on_change` is called there when somebody may have lost his right."""
        self.look()

        def run() -> None:
            again = time.monotonic() + _RECHECK_S
            while not self._stop.wait(_LOOK_S):
                if self.look() or time.monotonic() > again:
                    again = time.monotonic() + _RECHECK_S
                    on_change()

        threading.Thread(target=run, name="keyring", daemon=True).start()

    def close(self) -> None:
        """Let the thread end; it is not waited for, as its database may not answer."""
        self._stop.set()

    def look(self) -> bool:
        """Take up what changed; tell whether something did, or something expired. Keeps what it knows where it cannot look."""
        changed = False
        try:
            changed = self._read_state()
            self._read_key()
        except (SQLAlchemyError, QalaError, OSError) as error:
            self._complain(error)
        else:
            self._recover()
        return self._note_ends(changed=changed)

    def _read_key(self) -> None:
        """Read the key once there is one. Raises as `read_key` where it is missing and tokens need it."""
        if not self._has_key and (self._known.tokens or self._key_file.exists()):
            self._key, self._has_key = read_key(self._key_file), True

    def _read_state(self) -> bool:
        if self._upto == (0, 0) and self._state_file is not None and not self._state_file.exists():
            return False  # nobody has made one yet
        with self._engine.connect() as connection:
            upto = last_change(connection), registry.last_row(connection)
            if upto == self._upto:
                return False
            is_another = upto[0] < self._upto[0] or upto[1] < self._upto[1]  # restored from a backup
            since = 0 if is_another else self._upto[0]
            rows = changed_since(connection, since)
            retired = registry.retirements(connection)
        known = self._known if since else _Known()
        known.retired = retired
        known.take(rows, self._now_us())
        self._known, self._upto = known, upto
        return True

    def _note_ends(self, *, changed: bool) -> bool:
        """Tell whether anything changed or came to its end since the last look, and find the end that comes next."""
        now_us = self._now_us()
        if not changed and now_us < self._next_end_us:
            return False
        known = self._known
        ends = [token.until_us for token in known.tokens.values()] + list(known.retired.values())
        self._next_end_us = min((end for end in ends if end > now_us), default=_NEVER)
        return True

    def _complain(self, error: Exception) -> None:
        self._failures += 1
        if self._failures < _PATIENCE:
            return
        words = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        if not self.trouble:
            _log.error("credentials stay as they were last known: %s", words)
        self.trouble = words

    def _recover(self) -> None:
        if self.trouble:
            _log.warning("credentials are up to date again")
        self.trouble, self._failures = "", 0


_NEVER = 2**63 - 1


class _Token(msgspec.Struct, frozen=True, gc=False):
    principal: str
    digest: bytes
    filters: tuple[str, ...]
    until_us: int


class _Known:
    """What is known of credentials: tokens by id, since when certificates are taken [us], until when devices belong to us [us]."""

    def __init__(self) -> None:
        self.tokens: dict[str, _Token] = {}
        self.barred: dict[str, int] = {}
        self.retired: Mapping[str, int] = {}

    def take(self, rows: list[Credential], now_us: int) -> None:
        """Take up rows that changed."""
        for row in rows:
            if row.kind is CredentialKind.CERTIFICATES:
                self.barred[row.principal] = row.created_us
            elif row.state(now_us) == "valid":
                until_us = _NEVER if row.expires_us is None else row.expires_us
                self.tokens[row.id] = _Token(row.principal, row.digest, tuple(row.filters), until_us)
            else:
                self.tokens.pop(row.id, None)


# ---- the key of the digests


def key_file(data: Path) -> Path:
    """Return where the key lies, in the data folder."""
    return data / "credential.key"


def read_key(path: Path) -> bytes:
    """Read the key. Raises UnavailableError where it cannot be read, CorruptError where it is none."""
    try:
        key = path.read_bytes()
    except OSError as error:
        raise UnavailableError(
            f"cannot read {path}: {error.strerror}", hint="it belongs to the user that Qala runs as"
        ) from error
    if path.stat().st_mode & 0o077:
        _log.warning("others may read %s: let its owner alone do so (chmod 600)", path)
    if len(key) != _KEY_BYTES:
        raise CorruptError(f"{path} is no key", hint="put its backup back; without it every credential is issued anew")
    return key


def make_key(path: Path) -> bytes:
    """Return the key, making it where there is none; of several that make it at once, one does. Raises as `read_key`."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as writing:
                writing.write(os.urandom(_KEY_BYTES))
                writing.flush()
                os.fsync(writing.fileno())
            _link(draft, path)
        except OSError as error:
            raise UnavailableError(f"cannot write {path}: {error.strerror}", hint="see qala doctor") from error
        finally:
            draft.unlink(missing_ok=True)
    return read_key(path)


def _link(draft: Path, path: Path) -> None:
    """Give a finished file its name, unless another has it already."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
