"""Backups of the store and the way back from them.

A backup is one moment of the store. What came after it is in the journal, so a restored store goes on from its own position.
Three things happened outside the journal meanwhile, or were not done yet: windows that waited to be computed, messages that
were rejected and then replayed, and changes of the registry. So the manifest beside a backup keeps what the state knew, and a
restore asks for exactly these again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
from sqlalchemy import Engine

from devices.device import Device, Placement, Registry, Zone
from devices.errors import ConflictError, CorruptError, NotFoundError, UnavailableError, UnsupportedError
from devices.reading import Position
from ingest.published import Published
from ingest.reader import JournalReader
from qala.client import connect
from qala.config import Config
from qala.process import Hold, holder
from qala.state import open_state
from qala.state import rejected as rejections
from qala.state.dirty import DirtyMarks, Due
from qala.state.judged import Judged, judged, set_judged
from qala.state.registry import load_registry
from qala.state.reopened import affected, reopen, reopened
from qala.state.rewound import Rewound, set_rewound
from qala.store import Store, StoreSettings, open_store
from qala.store.base import Backups
from qala.store.duckdb_backup import read_through
from qala.store.durable import sync, sync_folder
from qala.store.manifest import (
    Manifest,
    OnDay,
    describe,
    differences,
    read_manifest,
    write_manifest,
)

__all__ = ["Known", "back_up", "embedded", "finish_replacement", "known", "manifest_of", "replace", "restore", "verify"]

_EVER_US = 2**62
_DUE_MAX = 10_000_000
_BACKUP_S = 24 * 3600.0
_QUIET: OnDay = lambda _day, _rows: None  # noqa: E731

Say = Callable[[str], None]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the state knew before a backup was made.

    By journal, up to which message all was computed, and what was rejected; which devices were awaited; what waited to be
    computed, as devices, as (series, 5-minute bucket) and as windows; and the registry, without its drawings.
    Without all this, `restore` takes everything that the journal still holds once more.
    """

    computed: Mapping[str, int] = {}
    rejected: Mapping[str, list[int]] = {}
    awaited: Mapping[str, int] = {}
    reopened: list[str] = []
    marked: tuple[list[int], list[int]] = ([], [])
    due: list[Due] = []
    devices: list[Device] = []
    zones: list[Zone] = []
    placements: list[Placement] = []


def manifest_of(file: Path) -> Path:
    """Return where the manifest of a backup lies."""
    return file.with_name(file.name + ".json")


def embedded(url: str, *, hint: str = "copy it from and to another store: qala store copy") -> Path:
    """Return the file of an embedded store. Raises UnsupportedError for others."""
    scheme, _, rest = url.partition(":")
    if scheme != "duckdb":
        raise UnsupportedError(f"a store of {scheme!r} is no file of ours", hint=hint)
    return Path(rest.removeprefix("//"))


# ---- backup


def back_up(config: Config, file: Path, *, say: Say, on_day: OnDay = _QUIET) -> Manifest:
    """Copy the store to a file while it is in use, and write what the copy holds beside it.

    Through the running server, or over the files where none runs. Raises ConflictError where the file exists.
    """
    file = file.expanduser().absolute()
    embedded(config.store_url)
    if not file.parent.is_dir():
        raise NotFoundError(f"there is no folder {file.parent}", hint="make it first")
    for path in (file, manifest_of(file)):
        if path.exists():
            raise ConflictError(f"{path} exists", hint="name another file; backups are never overwritten")
    made_us = time.time_ns() // 1000
    before = known(config)
    _copy(config, file)
    say(f"copied {file.stat().st_size / 1e6:.1f} MB; reading the copy")
    with _opened(f"duckdb://{file}", config.store) as copy:
        found = describe(copy, qala=version("qala"), made_us=made_us, on_day=on_day)
    manifest = msgspec.structs.replace(found, state=msgspec.Raw(msgspec.json.encode(before)))
    write_manifest(manifest_of(file), manifest)
    return manifest


def _copy(config: Config, file: Path) -> None:
    if holder(config.folder / "serve.lock") is not None:
        with connect(config, must_run=True) as client:
            client.post("/store/backup", {"file": str(file)}, timeout_s=_BACKUP_S)
        return
    if not embedded(config.store_url).exists():
        raise NotFoundError(f"there is no store at {config.store_url}", hint="name the data folder with --data")
    hold = Hold(config.folder / "serve.lock")
    try:
        with _opened(config.store_url, config.store) as store:
            if not isinstance(store, Backups):
                raise UnsupportedError("this engine makes no backups", hint="copy the store with: qala store copy")
            store.backup(file)
    finally:
        hold.release()


def known(config: Config) -> Known:
    """Read what the state knows now.

    A running server takes what waits from one list to the next - rejected, devices, marks, windows, values: so they are read in
    that order, and nothing slips through between two of them. Marks may be in its memory alone, and all comes back of messages
    after the one up to which it had judged: so that is read before all others.
    """
    engine = open_state(config.state_url)
    try:
        journal = JournalReader(config.folder / "journal").id
        stands = judged(engine, journal)
        registry = load_registry(engine)
        rejected, awaited = rejections.positions(engine, journal), rejections.awaited_devices(engine)
        devices = sorted(reopened(engine))
        series, bucket = DirtyMarks(engine).pending(journal)
        due = DirtyMarks(engine).due(_EVER_US, _DUE_MAX)
        return Known(
            computed={journal: 0 if stands.rebuilding else stands.number},
            rejected={journal: rejected},
            awaited={name: at.number for name, at in awaited.items() if at.journal == journal},
            reopened=devices,
            marked=(series.tolist(), bucket.tolist()),
            due=due,
            devices=list(registry.devices.values()),
            zones=[msgspec.structs.replace(zone, geometry={}) for zone in registry.zones.values()],
            placements=list(registry.placements),
        )
    finally:
        engine.dispose()


class _opened:  # noqa: N801 - reads as a function
    """Open a store for a block."""

    def __init__(self, url: str, settings: StoreSettings) -> None:
        self._store = open_store(url, settings)

    def __enter__(self) -> Store:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()


# ---- verify


def verify(config: Config, target: str, manifest: Path | None, *, on_day: OnDay = _QUIET) -> tuple[Manifest, list[str]]:
    """Compare a backup, or a store by URL, with a manifest; return that and what differs.

    Raises CorruptError where a file of ours is damaged anywhere, in its roll-ups too.
    """
    url = target if ":" in target.partition("/")[0] else f"duckdb://{Path(target).expanduser().absolute()}"
    if url.startswith("duckdb:") and not embedded(url).is_file():
        raise NotFoundError(f"there is no file {embedded(url)}", hint="name a backup, or a store by its URL")
    if manifest is None and not url.startswith("duckdb:"):
        raise NotFoundError("no manifest lies beside a store of another engine", hint="name one: --manifest FILE.json")
    wanted = read_manifest(manifest or manifest_of(embedded(url)))
    with _opened(url, config.store) as store:
        found = describe(store, qala=wanted.qala, made_us=0, on_day=on_day)
    if url.startswith("duckdb:"):
        read_through(embedded(url))
    return wanted, differences(wanted, found)


# ---- restore


def restore(config: Config, file: Path, *, force: bool, say: Say, on_day: OnDay = _QUIET) -> Path | None:
    """Put a backup in the place of the store; return where the former one lies now, None where there was none.

    Raises ConflictError while a server runs, and without `force` where something would be missing; CorruptError where the
    backup is not what its manifest says.
    """
    place = embedded(config.store_url)
    file = file.expanduser().absolute()
    hold = Hold(config.folder / "serve.lock")
    try:
        manifest, differing = verify(config, str(file), None, on_day=on_day)
        if differing:
            raise CorruptError(
                f"{file} is not what was copied: {'; '.join(differing[:5])}", hint="restore another backup"
            )
        reader = JournalReader(config.folder / "journal")
        _check_journal(manifest, reader, force=force, say=say)
        say("the backup is whole; copying it into place")
        _ask_again(config, manifest, reader)  # first: asked of the former store it changes nothing
        return replace(place, file, move=False)
    finally:
        hold.release()


def _check_journal(manifest: Manifest, reader: JournalReader, *, force: bool, say: Say) -> None:
    """Say what the journal cannot give back. Raises ConflictError unless forced."""
    told = _missing(manifest, reader)
    if told and not force:
        raise ConflictError(told, hint="restore it nevertheless with --force, or a newer backup")
    if told:
        say(told)


def _missing(manifest: Manifest, reader: JournalReader) -> str:
    if not reader.id or not reader.synced():
        return ""
    if reader.id not in manifest.positions:
        return (
            f"the backup is of another journal than that of this folder, which holds messages up to {reader.synced()}"
        )
    applied, first = manifest.positions[reader.id], reader.first()
    if first > applied + 1:
        return (
            f"the journal begins at message {first}, and the backup ends at {applied}: "
            f"{first - applied - 1} messages would be missing"
        )
    if applied > reader.synced():
        return (
            f"the journal ends at message {reader.synced()}, before the backup, which ends at {applied}: "
            f"the next {applied - reader.synced()} messages would be taken for known"
        )
    return ""


def replace(place: Path, file: Path, *, move: bool) -> Path | None:
    """Put a file in the place of the store, and the former store aside. There is a store at every moment.

    The new file is copied, or with `move` only renamed; it is durable before it gets its name.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = file if move else _copied(file, place.with_name(place.name + ".restoring"))
    aside = _aside(place)
    wal = place.with_name(place.name + ".wal")
    if wal.exists():  # first: it must never lie beside a file that it is not of
        wal.rename(aside.with_name(aside.name + ".wal"))
    former = place.exists()
    if former:
        _keep_as(place, aside)
    fresh.rename(place)
    sync_folder(place.parent)
    return aside if former else None


def _copied(file: Path, to: Path) -> Path:
    """Copy a file durably. Raises UnavailableError where there is no room; nothing stays of it then."""
    try:
        shutil.copyfile(file, to)
        sync(to)
    except OSError as error:
        to.unlink(missing_ok=True)
        raise UnavailableError(
            f"cannot copy to {to}: {error.strerror}", hint="see to disk space and permissions"
        ) from error
    return to


def _keep_as(place: Path, aside: Path) -> None:
    """Give the former store its second name, while the first stays; file systems without links take the first away."""
    try:
        os.link(place, aside)
    except OSError:
        place.rename(aside)


def _aside(place: Path) -> Path:
    """Return a name for the former store that is not taken."""
    stem = f"{place.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = [place.with_name(stem), *(place.with_name(f"{stem}-{n}") for n in range(2, 1000))]
    return next(name for name in names if not name.exists() and not name.with_name(name.name + ".wal").exists())


def _ask_again(config: Config, manifest: Manifest, reader: JournalReader) -> None:
    """Ask the next start for what neither the backup nor the rest of the journal gives."""
    before = msgspec.json.decode(manifest.state, type=Known | None) or Known()
    engine = open_state(config.state_url)
    try:
        applied = manifest.positions.get(reader.id, 0)
        after = _take_after(engine, before, reader.id, applied)
        now = load_registry(engine)
        with engine.begin() as connection:
            changed = affected(Registry(before.devices, before.zones, before.placements), now)
            reopen(connection, changed | set(before.reopened))
        marks, (series, bucket) = DirtyMarks(engine), before.marked
        marks.mark(np.array(series, np.int32), np.array(bucket, np.int64), Position(reader.id, applied))
        marks.add_due(before.due, now_us=0)
        set_rewound(engine, reader.id, Rewound(after, applied))
        finish_replacement(engine, reader.id, applied)
        _publish(config.folder / "journal" / "applied", after)
    finally:
        engine.dispose()


def _take_after(engine: Engine, before: Known, journal: str, applied: int) -> int:
    """Return after which message all has to be taken once more."""
    replayed = set(before.rejected.get(journal, ())) - set(rejections.positions(engine, journal))
    admitted = before.awaited.keys() - rejections.awaited_devices(engine).keys()
    firsts = [*replayed, *(before.awaited[name] for name in admitted)]
    return min([before.computed.get(journal, 0), applied, *(first - 1 for first in firsts)])


def finish_replacement(engine: Engine, journal: str, applied: int) -> None:
    """Let alerts wait until the store is as far as it was: nobody is told of half of it."""
    stands = judged(engine, journal)
    set_judged(engine, journal, Judged(max(stands.number, applied), rebuilding=True))


def _publish(path: Path, number: int) -> None:
    """Tell the door that messages after a number are still needed."""
    if path.exists():
        published = Published(path)
        published.set(min(published.get(), number))
        published.close()
