"""docs/faults.md names a test for every fault, each of them exists, and the sizes that it gives are those that run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.faults.sizes import SIZES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "faults.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
FAULTS = [f"F{number}" for number in [*range(1, 21), 24]]


def rows() -> dict[str, str]:
    """Return the table's row of each fault."""
    return {found[1]: found[0] for found in re.finditer(r"^\| (F\d+) \|.*$", PAGE, re.MULTILINE)}


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_that_is_named_exists(file: str, test: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_fault_names_a_test() -> None:
    assert len(NAMED) > 40
    assert {name for name, row in rows().items() if "::test_" in row} == set(FAULTS)


@pytest.mark.parametrize("fault", [name for name in SIZES if name in FAULTS])
def test_the_sizes_are_those_that_run(fault: str) -> None:
    for size in SIZES[fault]:
        for number in (size.messages, size.strikes, round(size.fault_s)) if size else ():
            assert number <= 3 or f"{number:,}" in rows()[fault], f"{fault} runs with {number:,}"


def test_every_scenario_of_the_faults_is_in_the_table() -> None:
    tests = {
        node.name
        for path in (ROOT / "tests" / "faults").glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert tests - {test for _, test in NAMED} == set()
