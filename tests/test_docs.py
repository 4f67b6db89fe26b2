"""The documents say what the code does: every example runs, every word and setting is named."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from analytics.indicator import Indicator
from analytics.indicators import indicators
from analytics.rulebook import failures, load_rules, parse_rule
from devices.kind import Kind
from devices.quantity import QUANTITIES
from ingest.message import Message
from qala.replay.mapping import load_mapping, plan
from qala.store.conformance import StoreConformance

ROOT = Path(__file__).parents[1]
EXTENDING = (ROOT / "docs" / "extending.md").read_text()


def example(path: str) -> str:
    """Return the block of the page that begins with the name of a file."""
    [block] = [
        b for b in re.findall(r"```(?:python|toml)\n(.*?)```", EXTENDING, re.DOTALL) if b.startswith(f"# {path}\n")
    ]
    return block


def module(path: str) -> ModuleType:
    """Run an example as the module it would be."""
    made = ModuleType(Path(path).stem)
    exec(compile(example(path), path, "exec"), made.__dict__)
    return made


def test_the_kind_is_a_kind_of_known_quantities() -> None:
    kind = module("devices/kinds/noise_monitor.py").KIND
    assert isinstance(kind, Kind)
    assert set(kind.quantities) <= set(QUANTITIES)


def test_the_format_decodes_what_it_says_and_rejects_the_rest() -> None:
    made = module("ingest/formats/airgradient.py")
    topic = "airgradient/readings/84fce612f5b8"
    assert made.reads(topic)
    decoded = made.decode(Message(topic, b'{"pm02": 12.5, "rhum": 40, "wifi": -52}', 0))
    [report] = decoded.reports
    assert (report.device, report.keys, report.values) == (
        "airgradient/84fce612f5b8",
        ("pm2_5", "relative_humidity"),
        [12.5, 40],
    )
    assert [(r.reason, r.key) for r in decoded.rejections] == [("unknown_quantity", "wifi")]
    assert [r.reason for r in made.decode(Message(topic, b"{", 0)).rejections] == ["bad_json"]


def test_the_indicator_computes_what_its_doctest_says() -> None:
    made = module("analytics/indicators/co2_mean.py")
    assert isinstance(made.INDICATOR, Indicator)
    assert doctest.testmod(made) == doctest.TestResults(failed=0, attempted=2)


def test_the_engine_takes_the_conformance_suite() -> None:
    assert issubclass(module("tests/test_my_engine.py").TestMyEngine, StoreConformance)


def test_the_rule_passes_its_own_tests() -> None:
    book = parse_rule(example("rules/bad_air.toml"), where="docs", indicators=indicators())
    assert failures(book) == []


def test_the_mapping_makes_messages(tmp_path: Path) -> None:
    path = tmp_path / "school.toml"
    path.write_text(example("mappings/school.toml"))
    row = {"building": "7", "room": "roof", "when": "2026-01-10 12:00", "PM2.5, mg/m3": "0.012"}
    [planned] = plan(load_mapping(str(path)), [row])
    assert planned.topic == "school/7-roof"
    assert json.loads(planned.payload)["v"] == {"pm2_5": 12.0}


@pytest.mark.parametrize("page", [*sorted(path.name for path in ROOT.glob("*.md")), "docs"])
def test_links_between_documents_lead_somewhere(page: str) -> None:
    pages = sorted((ROOT / "docs").rglob("*.md")) if page == "docs" else [ROOT / page]
    for path in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_page_is_found_from_the_first_one() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    linked = "".join((ROOT / name).read_text() for name in ("README.md", "ARCHITECTURE.md", "docs/operating.md"))
    assert {name for name in pages if f"{name})" not in linked} == set()


def test_every_shipped_rule_has_a_runbook_and_passes_its_tests() -> None:
    for book in load_rules(indicators()).values():
        assert book.rule.runbook_text.startswith(f"# {book.rule.title}")
        assert failures(book) == []


WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("analytics", "dashboards", "devices", "ingest", "qala")
    for path in (ROOT / package).rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_in_docstrings_come_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def glossary() -> list[str]:
    """The words of the glossary in lower case, without their twins in brackets."""
    rows = re.findall(r"^\| ([A-Z][^|]*?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    plain = [re.sub(r"[\[(].*?[\])]", "", row) for row in rows]
    return [word.strip().lower() for row in plain for word in row.split(",")]


def names_in_code() -> set[str]:
    """Every word that modules, classes, functions, fields and arguments are named with."""
    names: set[str] = set()
    for package in ("analytics", "dashboards", "devices", "ingest", "qala"):
        for path in (ROOT / package).rglob("*.py"):
            tree = list(ast.walk(ast.parse(path.read_text())))
            names |= {path.stem, path.parent.name}
            names |= {node.name for node in tree if isinstance(node, ast.ClassDef | ast.FunctionDef)}
            names |= {node.arg for node in tree if isinstance(node, ast.arg)}
            names |= {n.target.id for n in tree if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return {part for name in names for part in name.lower().split("_")}


def test_the_code_knows_every_word_of_the_glossary() -> None:
    words = glossary()
    assert len(words) > 30
    assert {part for word in words for part in word.split()} <= names_in_code()


@pytest.mark.parametrize(
    "module",
    ["devices.device", "devices.kind", "devices.quantity", "devices.reading", "devices.value", "ingest.message"],
)
def test_the_glossary_has_every_type_that_flows(module: str) -> None:
    types = {
        name.lower().removesuffix("info")
        for name, kind in vars(importlib.import_module(module)).items()
        if isinstance(kind, type) and kind.__module__ == module and not issubclass(kind, Exception)
    }
    assert types
    assert types - {"messagetype", "source"} <= set(glossary())
