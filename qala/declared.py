"""The devices and zones that files declare: reading them from disk, and bringing the registry to them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from devices.device import Device, Placement, Zone
from devices.errors import ConfigError
from devices.files import parse_devices
from devices.zone_file import parse_zones
from qala.config import Config
from qala.process import holder
from qala.state import open_state
from qala.state.registry import import_registry

__all__ = ["import_declared", "import_files", "import_items", "read_devices", "read_zones"]


def import_declared(engine: Engine, devices: Path | None, zones: Path | None) -> dict[str, int]:
    """Bring the registry to what files declare, and count what they hold and what that changed. Raises ConfigError."""
    declared, placements = read_devices(devices) if devices else ([], [])
    drawn = read_zones(zones) if zones else []
    changes = import_registry(engine, declared, drawn, placements, _now_us())
    return {"devices": len(declared), "zones": len(drawn), "changes": changes}


def import_files(config: Config, devices: Path | None, zones: Path | None) -> dict[str, int]:
    """Import files, by default those of the configuration, and let a running server take them up.

    The state takes several writers; the server keeps its own copy of the registry, and reads it again on SIGHUP.
    """
    devices, zones = (devices, zones) if devices or zones else (config.devices_file, config.zones_file)
    if not devices and not zones:
        raise ConfigError("there is nothing to import", hint="name a devices file, or set devices_file in qala.toml")
    with _state(config) as engine:
        return import_declared(engine, devices, zones)


def import_items(
    config: Config, devices: Sequence[Device], zones: Sequence[Zone], placements: Sequence[Placement]
) -> int:
    """Bring the registry to what a program declares, as `import_files` does, and return the number of changes."""
    with _state(config) as engine:
        return import_registry(engine, devices, zones, placements, _now_us())


@contextmanager
def _state(config: Config) -> Iterator[Engine]:
    """Open the state beside a server that may run, and let that read the registry again afterwards."""
    engine = open_state(config.state_url)
    try:
        yield engine
    finally:
        engine.dispose()
    if server := holder(config.folder / "serve.lock"):
        os.kill(server.pid, signal.SIGHUP)


def _now_us() -> int:
    return time.time_ns() // 1000


def read_devices(path: Path) -> tuple[list[Device], list[Placement]]:
    """Read a devices file, CSV or YAML by its name. Raises ConfigError that names the file and the line."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return parse_devices(_text(path), "csv")
    if suffix in {".yaml", ".yml"}:
        return parse_devices(_text(path), "yaml")
    raise ConfigError(f"{path} is neither CSV nor YAML by its name", hint="call it devices.csv or devices.yaml")


def read_zones(path: Path) -> list[Zone]:
    """Read a zones file (GeoJSON). Raises ConfigError that names the feature and the field."""
    return parse_zones(_text(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error.reason}", hint="save it as UTF-8") from error
