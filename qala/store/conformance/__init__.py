"""What every storage engine must do: a suite for pytest that an engine's tests subclass, also in another package.

    from qala.store.conformance import Opening, StoreConformance

    class TestMyEngine(StoreConformance):
        @contextmanager
        def place(self) -> Iterator[Opening]:
            with tempfile.TemporaryDirectory() as folder:
                yield lambda: open_store(f"mine://{folder}/readings")

It needs pytest and hypothesis (the extra `conformance`); nothing else of Qala imports them.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "appending",
            "builders",
            "histories",
            "lifetime",
            "reading",
            "series",
            "suite",
            "values",
            "windows",
        )
    )
)

from qala.store.conformance.builders import (  # noqa: E402 - once assertions are rewritten
    ALWAYS,
    DAY,
    EVERY,
    MINUTE,
    T0,
    a_value,
    air,
    batch,
    brief,
    everything,
    offered,
    rows,
    with_series,
)
from qala.store.conformance.suite import Opening, StoreConformance  # noqa: E402

__all__ = [
    "ALWAYS",
    "DAY",
    "EVERY",
    "MINUTE",
    "T0",
    "Opening",
    "StoreConformance",
    "a_value",
    "air",
    "batch",
    "brief",
    "everything",
    "offered",
    "rows",
    "with_series",
]
