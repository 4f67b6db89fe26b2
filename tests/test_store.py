"""The engines that need no server pass the conformance suite, and so does one in somebody else's package."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


ROOT = Path(__file__).parents[1]
THEIR_ENGINE = """
from qala.store.base import Capabilities
from qala.store.memory import MemoryStore


class TheirStore(MemoryStore):
    capabilities = Capabilities(engine="theirs", persistent=False)


class LastWins(TheirStore):
    def _put(self, reading):
        self._readings.setdefault(reading.series, {})[reading.time_us] = reading


def open_url(url, settings):
    return LastWins() if url == "theirs:broken" else TheirStore()
"""
THEIR_TEST = """
from contextlib import contextmanager

from qala.store import open_store
from qala.store.conformance import StoreConformance


class TestTheirs(StoreConformance):
    histories = 5

    @contextmanager
    def place(self):
        yield lambda: open_store({url!r})
"""


def run_their_suite(folder: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Install an engine in a folder of the path, as a package manager would, and run its tests there."""
    (folder / "their_engine.py").write_text(THEIR_ENGINE)
    (folder / "test_theirs.py").write_text(THEIR_TEST.format(url=url))
    installed = folder / "their_engine-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: their-engine\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[qala.stores]\ntheirs = their_engine\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options, "test_theirs.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_engine_in_another_package_is_opened_by_its_name_and_passes_the_suite(tmp_path: Path) -> None:
    done = run_their_suite(tmp_path, "theirs:anything")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_a_broken_engine_in_another_package_fails_the_suite(tmp_path: Path) -> None:
    done = run_their_suite(tmp_path, "theirs:broken", "-k", "highest_revision or outranked")
    assert done.returncode == 1, done.stdout + done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED test_theirs.py::TestTheirs::")]
    for name in ("highest_revision", "outranked_reading"):
        assert any(name in line for line in failed), done.stdout
    assert "== [(1, 1728000000000000, 40.0)]" in done.stdout  # the assertion says what was there instead
