"""The rehearsal city as it is configured: how large it is, what it lives by, and which faults it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from devices.rehearsal.city import City

__all__ = ["FaultRates", "RehearsalSettings", "rehearsal_city"]

_SEED_MAX = 2**31 - 1
_RATE_MAX = 10_000.0  # of each kind, a day: everything at once, many times over


def _rate(default: float, what: str) -> float:
    """Declare how many faults of a kind begin on a day."""
    rate: float = Field(
        default, ge=0, le=_RATE_MAX, description=f"Faults a day among 300 devices: {what}. 0 switches them off."
    )
    return rate


class FaultRates(BaseModel):
    """How often things go wrong; `[rehearsal.faults]` in qala.toml. The defaults are those of the library."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stuck: float = _rate(1.0, "one quantity keeps its value")
    spike: float = _rate(6.0, "one reading stands far out")
    drift: float = _rate(1.0, "one quantity climbs away from the truth")
    gap: float = _rate(2.0, "nothing is sent")
    duplicate: float = _rate(1.0, "every message is sent twice")
    late_batch: float = _rate(1.0, "nothing is sent, then all of it at once")
    clock_skew: float = _rate(0.5, "the device's clock is wrong")
    meter_reset: float = _rate(0.3, "a counter begins again at zero")
    malformed: float = _rate(2.0, "payloads that are not what the format describes")


class RehearsalSettings(BaseModel):
    """Settings of the rehearsal city; `[rehearsal]` in qala.toml, `QALA_REHEARSAL__...` in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(1, ge=0, le=_SEED_MAX, description="What the city lives by: the same seed is the same city.")
    devices: int = Field(300, ge=1, le=100_000, description="How many devices the city has.")
    with_faults: bool = Field(True, description="Whether anything goes wrong at all.")
    faults: FaultRates = FaultRates.model_validate({})


def rehearsal_city(settings: RehearsalSettings, *, topic_root: str = "qala") -> City:
    """Make the city that the settings describe."""
    from devices.rehearsal.city import City

    rates = settings.faults.model_dump() if settings.with_faults else {}
    return City(settings.seed, settings.devices, rates, topic_root=topic_root)
