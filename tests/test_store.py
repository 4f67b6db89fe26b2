"""The engines that need no server pass the conformance suite."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from devices.errors import ConfigError
from qala.store import open_store
from qala.store.conformance import Opening, StoreConformance


class TestMemory(StoreConformance):
    @contextmanager
    def place(self) -> Iterator[Opening]:
        yield lambda: open_store("memory:")


class TestDuckDB(StoreConformance):
    @contextmanager
    def place(self) -> Iterator[Opening]:
        with tempfile.TemporaryDirectory() as folder:
            yield lambda: open_store(f"duckdb://{folder}/readings.duckdb")


def test_an_unknown_engine_is_told() -> None:
    with pytest.raises(ConfigError, match="oracle"):
        open_store("oracle:whatever")
