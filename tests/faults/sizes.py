"""How much each scenario sends, and how hard it is struck: the one place for both tiers.

The fast tier runs with all other tests; the full one with `pytest -m torture`.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest

__all__ = ["SIZES", "Size", "patience_s", "slowness", "tiers"]

STALL_S = 1.0  # for so long a virtual disk may be held up by itself, whatever we do
FAST_TIMEOUT_S, FULL_TIMEOUT_S = 400, 1_500


class Size(NamedTuple):
    """`messages` [count, all devices], `strikes` [count], `fault_s` how long a fault lasts [s], `cases` [count]."""

    messages: int = 0
    strikes: int = 0
    fault_s: float = 0.0
    cases: int = 0


SIZES: dict[str, tuple[Size | None, Size]] = {  # fault: (fast, full); None: in the full tier alone
    "F1": (Size(messages=20_000, strikes=5), Size(messages=200_000, strikes=30)),
    "F2": (Size(messages=20_000, strikes=5), Size(messages=200_000, strikes=30)),
    "F3": (Size(messages=20_000, strikes=2), Size(messages=100_000, strikes=10)),
    "F6": (Size(messages=20_000, strikes=3), Size(messages=100_000, strikes=10)),
    "F7": (Size(fault_s=15.0), Size(strikes=2, fault_s=60.0)),
    "F14": (Size(messages=10_000, strikes=1, fault_s=5.0), Size(messages=50_000, strikes=2, fault_s=30.0)),
    "F15": (None, Size(cases=2_000)),
    "F16": (Size(fault_s=10.0), Size(fault_s=60.0)),
    "F19": (None, Size(messages=20_000)),
    "payloads": (Size(cases=2_000), Size(cases=100_000)),
    "packets": (Size(cases=5_000), Size(cases=100_000)),
}


def tiers(name: str) -> pytest.MarkDecorator:
    """Run a test with the sizes of both tiers, given as `size`."""
    fast, full = SIZES[name]
    marks = (pytest.mark.torture, pytest.mark.timeout(FULL_TIMEOUT_S))
    sizes = [] if fast is None else [pytest.param(fast, id="fast", marks=pytest.mark.timeout(FAST_TIMEOUT_S))]
    return pytest.mark.parametrize("size", [*sizes, pytest.param(full, id="full", marks=marks)])


def slowness() -> float:
    """Return by how much limits of time grow, because others have the machine too: they are those of an idle one."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def patience_s(limit_s: float) -> float:
    """Return how long [s] what must end within a limit on an idle machine may take on this one."""
    return limit_s * slowness() + STALL_S
