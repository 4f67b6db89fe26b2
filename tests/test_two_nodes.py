"""The example of docs/scaling-out.md runs, and both nodes come to the same values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(600)
def test_two_nodes_come_to_the_same_values() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QALA_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "two_nodes.py")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["days"]
    assert found["same"] > 1_000
    assert found["same"] + found["written"] + found["outdated"] == found["values"]
    assert found["written"] + found["outdated"] <= found["values"] / 100  # what came late between the two
