"""The InfluxDB store, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr

from qala.store import StoreSettings, open_store
from qala.store.conformance import Opening, StoreConformance
from tests.servers import Influx


class TestInfluxDB(StoreConformance):
    histories = 6

    @pytest.fixture(autouse=True)
    def _on(self, influx: Influx) -> None:
        self.influx = influx

    @contextmanager
    def place(self) -> Iterator[Opening]:
        bucket = self.influx.bucket()
        settings = StoreSettings(token=SecretStr(self.influx.token))
        yield lambda: open_store(self.influx.url(bucket), settings)
        self.influx.drop(bucket, f"{bucket}_qala")
