"""What is wrong with an installation, and what to do about it. Each look is one function that gives findings."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from devices.errors import QalaError
from ingest.settings import parse_address
from qala.client import connect
from qala.config import Config
from qala.process import answers, holder, is_free

__all__ = ["Finding", "check", "examine"]

_DISK_LOW = 1 << 30  # bytes
_STEP_S = 0.05
_NOTED = frozenset({"ingest.mqtt", "dashboards.http"})  # the addresses that locks tell
_CLOCK_EARLIEST = 1_767_225_600  # 2026-01-01: no running Qala is older
_CLOCK_SKEW_S = 0.5


class Finding(NamedTuple):
    """One thing that was looked at."""

    ok: bool
    subject: str
    found: str
    hint: str = ""


def check(config: Config) -> list[Finding]:
    """Check what was written by people: the files of devices and zones, the rules and the tests inside them."""
    return [Finding(True, "configuration", "read"), *_retention(config), *_declared(config), *_rules(config)]


def examine(config: Config) -> list[Finding]:
    """Look at the machine, the data folder and the running parts."""
    looks = (_versions, _clock, _folder, _disk, _page, _ports, _certificates, _brokers, _store, _parts)
    return [finding for look in looks for finding in look(config)]


# ---- what people wrote


def _retention(config: Config) -> Iterator[Finding]:
    from qala.upkeep import retention_of

    try:
        retention_of(config.store)
    except QalaError as error:
        yield Finding(False, "retention", error.message, error.hint)
        return
    kept = ", ".join(f"{name} {days:g} days" for name, days in config.store.keep_days.items())
    yield Finding(True, "retention", kept or "readings are kept for ever")


def _declared(config: Config) -> Iterator[Finding]:
    from devices.device import Registry
    from devices.kinds import kinds
    from qala.declared import read_devices, read_zones

    try:
        zones = read_zones(config.zones_file) if config.zones_file else []
        devices, placements = read_devices(config.devices_file) if config.devices_file else ([], [])
        if config.zones_file:
            Registry(devices, zones, placements)
    except QalaError as error:
        yield Finding(False, "devices and zones", error.message, error.hint)
        return
    yield Finding(True, "zones", f"{len(zones)} in {config.zones_file}" if config.zones_file else "no zones file")
    yield Finding(
        True, "devices", f"{len(devices)} in {config.devices_file}" if config.devices_file else "no devices file"
    )
    for kind in sorted({device.kind for device in devices} - set(kinds())):
        yield Finding(False, "devices", f"there is no kind {kind!r}", f"the kinds are {', '.join(sorted(kinds()))}")


def _rules(config: Config) -> Iterator[Finding]:
    from analytics.indicators import indicators
    from analytics.rulebook import failures, load_rules

    try:
        books = load_rules(indicators(), config.analytics.rules)
    except QalaError as error:
        yield Finding(False, "rules", error.message, error.hint)
        return
    for name, book in sorted(books.items()):
        failed = failures(book)
        for failure in failed:
            yield Finding(False, f"rule {name}", failure, "correct the rule, or what its test expects")
        if not failed:
            yield Finding(True, f"rule {name}", f"{len(book.tests)} tests pass")


# ---- the machine


def _versions(_config: Config) -> Iterator[Finding]:
    names = ("qala", "duckdb", "sqlalchemy", "fastapi", "pyarrow", "numpy")
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(True, "versions", ", ".join([f"python {python}", *(f"{name} {version(name)}" for name in names)]))


def _clock(_config: Config) -> Iterator[Finding]:
    hint = "set the clock, and keep it right with chrony or systemd-timesyncd"
    wall, steady = time.time(), time.monotonic()
    time.sleep(_STEP_S)
    drift_s = (time.time() - wall) - (time.monotonic() - steady)
    if wall < _CLOCK_EARLIEST:
        yield Finding(False, "clock", f"it says {time.strftime('%Y-%m-%d', time.gmtime(wall))}", hint)
    elif abs(drift_s) > _CLOCK_SKEW_S:
        yield Finding(False, "clock", f"it was moved by {drift_s:.1f} s while we looked", hint)
    else:
        yield Finding(True, "clock", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall)))


def _folder(config: Config) -> Iterator[Finding]:
    folder = config.folder
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            False, "data folder", f"{there} cannot be written", "choose another with --data, or become its owner"
        )
    else:
        yield Finding(True, "data folder", str(folder) if there == folder else f"{folder} will be made")


def _disk(config: Config) -> Iterator[Finding]:
    there = next(path for path in (config.folder, *config.folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free"
    if free < config.ingest.keep_free_bytes:
        yield Finding(
            False,
            "disk",
            f"{found}, less than ingest.keep_free_bytes: the oldest of the journal is being deleted",
            "free some, or set ingest.keep_free_bytes lower",
        )
    elif free < _DISK_LOW:
        yield Finding(False, "disk", found, "free some: when it is full, no message is acknowledged any more")
    else:
        yield Finding(True, "disk", found)


def _page(config: Config) -> Iterator[Finding]:
    if (config.dashboards.page / "index.html").exists():
        yield Finding(True, "page", "built")
    else:
        yield Finding(False, "page", "not built; the API works", "build it: python hatch_build.py in the checkout")


def _ports(config: Config) -> Iterator[Finding]:
    for key, address in config.addresses.items():
        ours = holder(config.folder / ("serve.lock" if key.startswith("dashboards.") else "door.lock"))
        if ours is None:
            yield _free(key, address)
        elif ours.note and key in _NOTED:  # flags may have given it another than we know of
            yield _answering(key, parse_address(ours.note))
        else:
            yield _answering(key, address)


def _answering(subject: str, address: tuple[str, int]) -> Finding:
    where = f"{address[0]}:{address[1]}"
    if answers(address):
        return Finding(True, subject, f"{where} answers")
    return Finding(False, subject, f"{where} does not answer", "look at the log of qala run")


def _free(key: str, address: tuple[str, int]) -> Finding:
    where = f"{address[0]}:{address[1]}"
    if is_free(address):
        return Finding(True, key, f"{where} is free")
    hint = f"choose another for {key}, or see who it is: ss -ltnp 'sport = :{address[1]}'"
    return Finding(False, key, f"{where} is in use by another program", hint)


def _certificates(config: Config) -> Iterator[Finding]:
    """Read the files of the door's TLS, as the door does."""
    from ingest.tls import server_context

    ingest = config.ingest
    if ingest.certificate is None or ingest.private_key is None:
        return
    try:
        server_context(ingest.certificate, ingest.private_key, ingest.client_ca)
    except QalaError as error:
        yield Finding(False, "certificate", error.message, error.hint)
        return
    yield Finding(True, "certificate", f"{ingest.certificate} and its key fit")


def _brokers(config: Config) -> Iterator[Finding]:
    """Ask the existing brokers whether they let us in; where a door runs, it knows, and a second client would disturb it."""
    from ingest.brokers.reaching import try_broker
    from ingest.report import read_report

    report = read_report(config.folder) if holder(config.folder / "door.lock") is not None else None
    known = {broker.name: broker for broker in report.brokers} if report is not None else {}
    for name, settings in config.ingest.brokers.items():
        if name in known:
            broker = known[name]
            well = broker.connected and not broker.error
            found = broker.error or f"the door is connected to {broker.address}"
            yield Finding(well, f"broker {name}", found, "" if well else "see docs/brokers.md, and the broker's log")
            continue
        try:
            client = try_broker(name, settings)
        except QalaError as error:
            yield Finding(False, f"broker {name}", error.message, error.hint)
        else:
            yield Finding(True, f"broker {name}", f"{settings.url} lets us in as {client}")


def _store(config: Config) -> Iterator[Finding]:
    """Open the store where no server does; its file is not made."""
    from qala.process import Hold
    from qala.store import open_store

    scheme, _, rest = config.store_url.partition(":")
    if holder(config.folder / "serve.lock") is not None:
        return
    if scheme == "duckdb" and not Path(rest.removeprefix("//")).exists():
        yield Finding(True, "store", f"{rest.removeprefix('//')} will be made")
        return
    try:
        hold = Hold(config.folder / "serve.lock")
        try:
            open_store(config.store_url, config.store).close()
        finally:
            hold.release()
    except QalaError as error:
        yield Finding(False, "store", error.message, error.hint)
        return
    yield Finding(True, "store", f"{scheme} opens")


# ---- the running parts


def _parts(config: Config) -> Iterator[Finding]:
    if holder(config.folder / "serve.lock") is None:
        yield Finding(True, "server", "not running; start it with: qala run")
        return
    try:
        with connect(config, must_run=True) as client:
            health = client.get("/health")
    except QalaError as error:
        yield Finding(False, "server", error.message, "end it with kill, and start it again: qala run")
        return
    yield Finding(health["status"] == "ok", "server", health["status"], _because(health["reasons"]))
    for name, part in health["parts"].items():
        yield Finding(part.get("up", True) is not False, name, _told(part))


def _told(part: Mapping[str, Any]) -> str:
    """Write what a part says of itself, as far as it has something to say; lists of details are for `/health`.

    >>> _told({"up": True, "address": "127.0.0.1:1883", "http": [], "journal_lost": 0, "error": None})
    'up yes, address 127.0.0.1:1883, journal_lost 0'
    """
    words = {True: "yes", False: "no"}
    plain = {
        name: value for name, value in part.items() if not isinstance(value, list | dict) and value not in (None, "")
    }
    return ", ".join(f"{name} {words[value] if isinstance(value, bool) else value}" for name, value in plain.items())


def _because(reasons: Iterable[dict[str, Any]]) -> str:
    return "; ".join(f"{reason['code']}: {reason['hint']}" for reason in reasons)
