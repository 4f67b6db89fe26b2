"""The judge over a real store and state: episodes follow values in any order, and what was told stays told."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from sqlalchemy import Engine

from analytics.judge import Judge
from analytics.notices import Outbox, backoff_us
from analytics.notify.log import LogChannel
from analytics.notify.webhook import WebhookChannel
from devices.value import Value
from qala.state.database import open_state
from qala.state.episodes import EpisodeRow, acknowledge, episodes, notices
from qala.store.memory import MemoryStore
from tests.test_alerts import HOUR, a_rule


def a_value(hour: int, value: float | None, zone: str = "z") -> Value:
    return Value(
        indicator="heat",
        zone=zone,
        window="1h",
        start_us=hour * HOUR,
        stop_us=(hour + 1) * HOUR,
        value=value,
        unit="K",
        n_good=1,
        n_expected=1,
        method="m",
        method_version="1",
        final_us=(hour + 2) * HOUR,
        status="ok" if value is not None else "incomplete",
    )


class Office:
    """A store, a state and a judge over them, with one rule."""

    def __init__(self, engine: Engine, channels: Sequence[str] = ()) -> None:
        self.store = MemoryStore()
        self.engine = engine
        self.live: list[EpisodeRow] = []
        self.judge = Judge(self.store, engine, {"hot": a_rule()}, channels=channels, on_episodes=self.live.extend)

    def learn(self, *values: Value, now_hour: int = 100) -> None:
        self.store.put_values(values)
        self.judge.judge(values, now_hour * HOUR)

    def spans(self, kind: str = "value") -> list[tuple[int, int | None]]:
        rows = [row for row in episodes(self.engine, states=["firing", "ended"]) if row.kind == kind]
        return sorted((r.start_us // HOUR, None if r.end_us is None else r.end_us // HOUR) for r in rows)

    def told(self) -> list[tuple[str, bool]]:
        rows = [n for row in episodes(self.engine) for n in notices(self.engine, row.id)]
        return [(n.kind, n.suppressed) for n in sorted(rows, key=lambda n: n.id)]


@pytest.fixture
def engine() -> Engine:
    return open_state("sqlite://")


COURSE = [5, 11, 12, None, 13, 7, 5, 11, 5, 14, 15, 9, 9, 16, 6, None, 12, 12]
EPISODES = [(1, 5), (9, 14), (16, None)]


def test_episodes_follow_values_as_they_come(engine: Engine) -> None:
    office = Office(engine)
    for hour, value in enumerate(COURSE):
        office.learn(a_value(hour, value), now_hour=hour + 1)
    assert office.spans() == EPISODES
    assert office.told() == [("raised", False), ("resolved", False)] * 2 + [("raised", False)]
    assert office.live[-1].state == "firing"


@pytest.mark.parametrize("seed", range(20))
def test_episodes_are_the_same_in_whatever_order_values_become_known(engine: Engine, seed: int) -> None:
    office = Office(engine)
    values = [a_value(hour, value) for hour, value in enumerate(COURSE)]
    random.Random(seed).shuffle(values)
    for value in values:
        office.learn(value)
    assert office.spans() == EPISODES


def test_judging_again_changes_nothing(engine: Engine) -> None:
    office = Office(engine)
    values = [a_value(hour, value) for hour, value in enumerate(COURSE)]
    office.learn(*values)
    before = (episodes(engine), office.told())
    assert office.judge.judge(values, 100 * HOUR) == []
    assert (episodes(engine), office.told()) == before


def test_an_amended_value_keeps_the_acknowledgement_of_its_episode(engine: Engine) -> None:
    office = Office(engine)
    office.learn(a_value(0, 5), a_value(1, 11), a_value(2, 12), a_value(3, 5), now_hour=4)
    [episode] = episodes(engine)
    acknowledge(engine, episode.id, "aigul", "on it", 4 * HOUR)
    office.learn(a_value(3, 13), now_hour=5)
    [amended] = episodes(engine)
    assert (amended.id, amended.state, amended.value) == (episode.id, "firing", 13)
    assert (amended.ack_actor, amended.ack_comment) == ("aigul", "on it")
    assert office.live[-1].ack_actor == "aigul"
    assert office.told() == [("raised", False), ("resolved", False), ("amended", False)]


def test_a_corrected_value_withdraws_its_episode_and_says_so(engine: Engine) -> None:
    office = Office(engine)
    office.learn(a_value(1, 11), a_value(2, 12), now_hour=3)
    office.learn(a_value(2, 6), now_hour=4)
    [row] = episodes(engine)
    assert row.state == "withdrawn"
    assert [kind for kind, _ in office.told()] == ["raised", "withdrawn"]


def test_old_news_is_recorded_and_not_sent(engine: Engine) -> None:
    office = Office(engine, channels=["log"])
    office.learn(a_value(1, 11), a_value(2, 12), a_value(3, 5), now_hour=1000)
    assert office.told() == [("raised", True), ("resolved", True)]
    assert Outbox(engine, {"log": LogChannel()}).step(1000 * HOUR) == 0


def test_the_end_of_an_episode_that_nobody_heard_of_is_not_sent(engine: Engine) -> None:
    office = Office(engine, channels=["log"])
    office.learn(a_value(1, 11), a_value(2, 12), now_hour=3 + 25)
    office.learn(a_value(3, 5), now_hour=3 + 25)
    assert office.told() == [("raised", True), ("resolved", True)]


def test_silence_is_an_episode_of_its_own_and_ends_with_the_next_value(engine: Engine) -> None:
    office = Office(engine)
    office.learn(a_value(0, 5), now_hour=1)
    assert office.judge.watch_silence(4 * HOUR) == []
    [silent] = office.judge.watch_silence(5 * HOUR)
    assert (silent.kind, silent.state, silent.severity) == ("no_data", "firing", "info")
    assert office.judge.watch_silence(6 * HOUR) == []
    office.learn(a_value(6, 5), now_hour=7)
    [ended] = office.judge.watch_silence(7 * HOUR)
    assert (ended.state, ended.end_us) == ("ended", 7 * HOUR)


def test_a_judge_that_starts_again_remembers_who_is_silent(engine: Engine) -> None:
    office = Office(engine)
    office.learn(a_value(0, 5), now_hour=1)
    office.judge.watch_silence(5 * HOUR)
    again = Judge(office.store, engine, {"hot": a_rule()}, channels=[])
    again.start(6 * HOUR)
    assert again.watch_silence(6 * HOUR) == []
    office.store.put_values([a_value(6, 5)])
    again.judge([a_value(6, 5)], 7 * HOUR)
    [ended] = again.watch_silence(7 * HOUR)
    assert ended.state == "ended"


def test_episodes_of_a_rule_that_is_no_more_end_without_a_word(engine: Engine) -> None:
    office = Office(engine)
    office.learn(a_value(1, 11), a_value(2, 12), now_hour=3)
    Judge(office.store, engine, {}, channels=["log"]).start(5 * HOUR)
    [row] = episodes(engine)
    assert (row.state, row.end_us) == ("ended", 5 * HOUR)
    assert [kind for kind, _ in office.told()] == ["raised"]


def test_judging_everything_again_changes_nothing(engine: Engine) -> None:
    office = Office(engine)
    office.learn(*(a_value(hour, value) for hour, value in enumerate(COURSE)))
    assert office.judge.judge_all(["z", "elsewhere"], 100 * HOUR) == []


class Receiver(BaseHTTPRequestHandler):
    """An endpoint that fails `failures` times and then takes everything."""

    failures = 0
    got: list[tuple[str, dict[str, object]]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if Receiver.failures:
            Receiver.failures -= 1
            self.send_response(503)
        else:
            Receiver.got.append((self.headers["Idempotency-Key"], body))
            self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the test's output quiet."""


@pytest.fixture
def endpoint() -> str:
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    Receiver.got, Receiver.failures = [], 0
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_notice_is_posted_until_it_is_taken_and_always_under_one_key(engine: Engine, endpoint: str) -> None:
    office = Office(engine, channels=["log", "webhook"])
    office.learn(a_value(1, 11), a_value(2, 12), now_hour=3)
    webhook = WebhookChannel(endpoint)
    outbox = Outbox(engine, {"log": LogChannel(), "webhook": webhook})
    Receiver.failures = 1
    now_us = 3 * HOUR
    assert outbox.step(now_us) == 2
    [notice] = notices(engine, episodes(engine)[0].id)
    assert notice.sent_us is None
    assert outbox.step(now_us) == 0
    now_us += backoff_us(1)
    assert outbox.step(now_us) == 1
    [(key, body)] = Receiver.got
    [notice] = notices(engine, episodes(engine)[0].id)
    assert (key, body["key"], notice.key) == (notice.key,) * 3
    assert (body["kind"], body["zone"], body["value"]) == ("raised", "z", 12.0)
    assert notice.sent_us == now_us
    webhook.close()


class PowerCut(BaseException):
    """What a kill between the sending of a notice and its note is to the one who sends."""


def test_a_notice_that_was_sent_but_not_noted_is_sent_again_under_its_key(engine: Engine) -> None:
    got: list[str] = []

    class Channel:
        name = "log"

        def send(self, notice: Mapping[str, object]) -> None:
            got.append(str(notice["key"]))
            if len(got) == 1:
                raise PowerCut

    office = Office(engine, channels=["log"])
    office.learn(a_value(1, 11), a_value(2, 12), now_hour=3)
    with pytest.raises(PowerCut):
        Outbox(engine, {"log": Channel()}).step(3 * HOUR)
    assert Outbox(engine, {"log": Channel()}).step(3 * HOUR) == 1
    assert Outbox(engine, {"log": Channel()}).step(4 * HOUR) == 0
    [notice] = notices(engine, episodes(engine)[0].id)
    assert got == [notice.key, notice.key]
