"""The rehearsal city: a seeded, deterministic fleet with faults and ground truth, for demonstrations and tests."""

from devices.rehearsal.city import City, Planned
from devices.rehearsal.faults import FAULTS, Fault, FaultKind

__all__ = ["FAULTS", "City", "Fault", "FaultKind", "Planned"]
