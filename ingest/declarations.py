"""The units that devices declare of their own quantities: what is known of them, and what new metadata changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Engine

from qala.state.registry import DeviceMetadata, metadata, put_metadata

__all__ = ["Declarations"]


class Declarations:
    """The newest metadata of each device, in memory as in the state. For the projector's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: Mapping[str, DeviceMetadata] = {}
        self.load()

    def load(self) -> None:
        """Read what the state knows."""
        self._known = metadata(self._engine)

    def units(self) -> dict[str, dict[str, str]]:
        """Return the declared units, by device and quantity."""
        return {device: item.units for device, item in self._known.items()}

    def changed(self, said: Sequence[DeviceMetadata]) -> list[str]:
        """Return the devices whose units would change by what they say now."""
        newest = self._with(said)
        return sorted(
            device for device in {item.device for item in said} if self._units(device) != newest[device].units
        )

    def take(self, said: Sequence[DeviceMetadata]) -> None:
        """Take new metadata in, in memory; `put` makes it last."""
        self._known = self._with(said)

    def put(self, said: Sequence[DeviceMetadata]) -> None:
        """Write metadata that was taken in to the state."""
        put_metadata(self._engine, said)

    def _with(self, said: Sequence[DeviceMetadata]) -> dict[str, DeviceMetadata]:
        newest = dict(self._known)
        for item in said:
            known = newest.get(item.device)
            if known is None or known.at_us <= item.at_us:
                newest[item.device] = item
        return newest

    def _units(self, device: str) -> dict[str, str]:
        known = self._known.get(device)
        return known.units if known else {}
