"""The page's words: every code that the server can give has a text in English, Russian and Kazakh, with its parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dashboards.health import HINTS, judge
from devices.errors import Reason
from ingest.report import BrokerReport, DoorReport
from qala import standing
from qala.state.commands import CommandState

TABLES = Path(__file__).parents[1] / "dashboards" / "web" / "src" / "i18n"
SPOKEN = {"lag_s": "lag", "late_s": "late", "free": "free", "messages": "messages", "error": "error"}
NOW = 1_795_348_800_000_000


def words(language: str) -> dict[str, str]:
    """Read a table of the page, those of its messages that have one form."""
    return dict(re.findall(r'^  "([^"]+)": "(.*)",$', (TABLES / f"{language}.ts").read_text(), re.MULTILINE))


def codes(language: str, family: str) -> set[str]:
    return {key.removeprefix(f"{family}.") for key in words(language) if re.fullmatch(rf"{family}\.\w+", key)}


def wrong() -> Mapping[str, Mapping[str, Any]]:
    """Say of every part all that can be wrong with it, as the parts themselves say it."""
    broker = BrokerReport(
        "old", "mqtt://a", connected=False, since_us=0, error="no", received=0, refused=0, waiting=0, attempts=1
    )
    troubles = {"credentials": "locked", "certificate": "expired"}
    report = DoorReport(brokers=(broker,), troubles=troubles, journal_lost=3, disk_low=True)
    behind = {"up": False, "lag_s": 90.0}
    return {
        "door": standing.of_door(report, NOW),
        **standing.of_brokers(report),
        "projector": {**behind, "damaged": 7},
        "scheduler": behind,
        "outbox": {"up": False},
        "probe": {"up": False, "late_s": 60.0},
        "store": {"up": False, "upkeep_error": "denied", "hint": ""},
    }


def reasons() -> dict[str, Mapping[str, Any]]:
    full = standing.of_door(DoorReport(disk_full=True, disk_free=1), NOW)
    return {
        reason.code: reason.params
        for parts in (wrong(), {"door": full})
        for reason in judge(parts, behind_s=30).reasons
    }


def test_health_gives_the_codes_that_have_hints_and_no_others() -> None:
    assert set(reasons()) == set(HINTS)


@pytest.mark.parametrize("language", ["en", "ru", "kk"])
@pytest.mark.parametrize(
    ("family", "given"),
    [
        pytest.param("reason", set(HINTS), id="reasons of health"),
        pytest.param("hint", set(HINTS), id="what to do about them"),
        pytest.param("rejected", {str(reason) for reason in Reason}, id="why something was rejected"),
        pytest.param("command", {str(state) for state in CommandState}, id="what became of a command"),
    ],
)
def test_every_code_has_a_text_and_every_text_a_code(language: str, family: str, given: set[str]) -> None:
    assert codes(language, family) == given


@pytest.mark.parametrize("language", ["en", "ru", "kk"])
def test_the_texts_of_reasons_fill_in_what_the_server_tells(language: str) -> None:
    table = words(language)
    for code, params in reasons().items():
        told = {SPOKEN[name] for name in params if name in SPOKEN}
        assert set(re.findall(r"\{(\w+)\}", table[f"reason.{code}"])) == told, code
