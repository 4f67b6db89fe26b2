"""Fixtures that tests of several modules share: servers that one test session starts once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Influx, started_influx


@pytest.fixture(scope="session")
def influx() -> Iterator[Influx]:
    """One InfluxDB for all tests that leave it running; each takes a bucket of its own."""
    with started_influx() as server:
        yield server
