"""Rules, folding and reconciling: what fires, when it ends, and what people are told when the past changes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.alerts import Condition, Episode, NoData, Point, Rule, Severity, fold, no_data_since
from analytics.indicators import indicators
from analytics.reconcile import Known, NoticeKind, reconcile
from analytics.rulebook import load_rules
from devices.errors import ConfigError

HOUR = 3_600_000_000


def a_rule(**changed: object) -> Rule:
    fields: dict[str, object] = {
        "id": "hot",
        "title": "Hot",
        "indicator": "heat",
        "window": "1h",
        "condition": Condition(threshold=10, clear=8),
        "for_us": 2 * HOUR,
        "no_data": NoData(after_us=4 * HOUR, severity=Severity.INFO),
        "severity": Severity.WARNING,
        "owner": "me",
        "runbook": "",
        "max_age_us": 24 * HOUR,
    }
    return Rule(**{**fields, **changed})  # type: ignore[arg-type]


def points(values: str) -> list[Point]:
    """Make one point an hour; "-" is a window without a number, "." no window at all."""
    return [
        Point(i * HOUR, (i + 1) * HOUR, None if word == "-" else float(word))
        for i, word in enumerate(values.split())
        if word != "."
    ]


def spans(episodes: list[Episode]) -> list[tuple[int, int | None]]:
    return [(e.start_us // HOUR, None if e.end_us is None else e.end_us // HOUR) for e in episodes]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param("5 5 5", [], id="normal values raise nothing"),
        pytest.param("5 11 5 11 5", [], id="breaches that do not last raise nothing"),
        pytest.param("5 11 12 5", [(1, 3)], id="a breach that lasts is an episode from its first window"),
        pytest.param("5 11 12", [(1, None)], id="it goes on until a window clears it"),
        pytest.param("5 11 12 9 9 8", [(1, 5)], id="between threshold and clear it goes on"),
        pytest.param("11 9 11 9", [], id="between threshold and clear a pending breach is dropped"),
        pytest.param("11 - 11 5", [(0, 3)], id="a window without a number does not end a pending breach"),
        pytest.param("11 11 - - - 5", [(0, 5)], id="nor a firing one"),
        pytest.param("11 11 . . . . 11 5", [(0, 2)], id="silence as long as no_data ends it with its last value"),
        pytest.param("11 11 . . . 11 5", [(0, 6)], id="a shorter silence does not"),
        pytest.param("10 10 10", [], id="a value at the threshold is not a breach"),
        pytest.param("11 11 8", [(0, 2)], id="a value at clear clears"),
        pytest.param("11 12 5 11 12", [(0, 2), (3, None)], id="a second breach is a second episode"),
    ],
)
def test_episodes_follow_from_values(values: str, expected: list[tuple[int, int | None]]) -> None:
    assert spans(fold(a_rule(), points(values))) == expected


def test_a_rule_can_watch_for_too_little() -> None:
    rule = a_rule(condition=Condition(threshold=2, clear=3, above=False))
    [episode] = fold(rule, points("5 1 0.5 2.5 3"))
    assert spans([episode]) == [(1, 4)]
    assert episode.worst == 0.5


def test_an_episode_says_when_it_fired_and_how_bad_it_got() -> None:
    [episode] = fold(a_rule(), points("5 11 14 12"))
    assert episode == Episode(start_us=HOUR, fired_us=3 * HOUR, end_us=None, worst=14, last=12)


def test_silence_is_judged_by_the_clock() -> None:
    rule = a_rule()
    assert no_data_since(rule, last_stop_us=10 * HOUR, now_us=14 * HOUR - 1) is None
    assert no_data_since(rule, last_stop_us=10 * HOUR, now_us=14 * HOUR) == 10 * HOUR


def known(values: str) -> list[Known]:
    return [Known(f"e{n}", episode) for n, episode in enumerate(fold(a_rule(), points(values)))]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param("5", "5 11 12", [("new", NoticeKind.RAISED)], id="a new episode is raised"),
        pytest.param(
            "5", "11 12 5", [("new", NoticeKind.RAISED), ("new", NoticeKind.RESOLVED)], id="one already over is both"
        ),
        pytest.param("11 12", "11 12 5", [("e0", NoticeKind.RESOLVED)], id="its end resolves it"),
        pytest.param("11 12", "11 12 13", [("e0", None)], id="only worse: nobody is told"),
        pytest.param("11 12", "11 12", [], id="no change: nothing"),
        pytest.param("5 11 12 5", "11 11 12 5", [("e0", NoticeKind.AMENDED)], id="an earlier start amends it"),
        pytest.param("11 12 5", "11 12 12 5", [("e0", NoticeKind.AMENDED)], id="a later end amends it"),
        pytest.param("11 12 5", "11 12 12", [("e0", NoticeKind.AMENDED)], id="an end taken back amends it"),
        pytest.param("11 12 5", "5 12 5", [("e0", NoticeKind.WITHDRAWN)], id="a corrected value withdraws it"),
        pytest.param(
            "11 12 12 12 12 5",
            "11 12 5 11 12 5",
            [("e0", NoticeKind.AMENDED), ("new", NoticeKind.RAISED), ("new", NoticeKind.RESOLVED)],
            id="one that falls apart keeps its id in the first part",
        ),
        pytest.param(
            "11 12 5 11 12 5",
            "11 12 12 12 12 5",
            [("e0", NoticeKind.AMENDED), ("e1", NoticeKind.WITHDRAWN)],
            id="of two that grow together the first stays",
        ),
    ],
)
def test_folding_again_tells_what_changed(before: str, after: str, told: list[tuple[str, NoticeKind | None]]) -> None:
    changes = reconcile(known(before), fold(a_rule(), points(after)), rule="hot", zone="z")
    ids = {k.id for k in known(before)}
    assert [(c.id if c.id in ids else "new", c.notice) for c in changes] == told


values_of_a_zone = st.lists(st.sampled_from([5.0, 9.0, 11.0, 15.0, None]), max_size=40)


@given(values_of_a_zone)
def test_episodes_never_overlap_and_last_long_enough(values: list[float | None]) -> None:
    rule = a_rule()
    episodes = fold(rule, [Point(i * HOUR, (i + 1) * HOUR, v) for i, v in enumerate(values)])
    for episode in episodes:
        assert episode.fired_us - episode.start_us >= rule.for_us
        assert episode.end_us is None or episode.end_us >= episode.fired_us
    for one, next_one in itertools.pairwise(episodes):
        assert one.end_us is not None
        assert one.end_us <= next_one.start_us


@given(values_of_a_zone, values_of_a_zone)
def test_reconciling_leaves_exactly_the_folded_episodes(before: list[float | None], after: list[float | None]) -> None:
    rule = a_rule()
    old, new = (
        fold(rule, [Point(i * HOUR, (i + 1) * HOUR, v) for i, v in enumerate(values)]) for values in (before, after)
    )
    state = {f"e{n}": episode for n, episode in enumerate(old)}
    for change in reconcile([Known(i, e) for i, e in state.items()], new, rule="hot", zone="z"):
        if change.episode is None:
            del state[change.id]
        else:
            state[change.id] = change.episode
    assert sorted(state.values(), key=lambda e: e.start_us) == new


def test_a_rule_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "smog.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"smog\.toml is not UTF-8"):
        load_rules(indicators(), tmp_path)
