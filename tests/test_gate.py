"""The door's gate over a real state: who gets in with what, until when, and what it costs to be wrong."""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from devices.device import Device
from devices.errors import CorruptError
from ingest.gate import NOBODY, OWNER, OpenGate, Principal, RefusedError, matches
from ingest.keyring import Keyring, key_file, make_key, read_key
from ingest.mqtt.wire import Code
from qala.state import credentials, open_state
from qala.state.credentials import Issue, Issued, revoke, rotate
from qala.state.registry import import_registry

SECOND, HOUR = 1_000_000, 3_600_000_000
START = 1_795_348_800 * SECOND  # 2026-11-22T12:00:00Z
DEVICE = "demo/air-1"


class Town:
    """A state, the key beside it, a clock that a test sets, and the keyring of a door."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/state.sqlite"
        self.state: Engine = open_state(self.url)
        self.now_us = START
        self.keyring = Keyring(self.url, folder, topic_root="qala", now_us=lambda: self.now_us)

    def issue(self, principal: str = DEVICE, filters: Sequence[str] = (), *, expires_us: int | None = None) -> Issued:
        key = make_key(key_file(self.folder))
        return credentials.issue(self.state, key, Issue(principal, filters, expires_us), self.now_us)

    def rotate(self, overlap_us: int) -> Issued:
        return rotate(self.state, make_key(key_file(self.folder)), Issue(DEVICE), self.now_us, overlap_us=overlap_us)

    def revoke(self, one: Issued | None = None) -> int:
        return revoke(self.state, DEVICE, self.now_us, id=one.credential.id if one else None)

    def retire(self, device: str, until_us: int) -> None:
        gone = Device(id=device, kind="air_quality", name="", until_us=until_us)
        import_registry(self.state, [gone], [], [], self.now_us)

    def enter(
        self, token: str | None, username: str | None = DEVICE, certificate: Mapping[str, Any] | None = None
    ) -> Principal:
        self.keyring.look()
        return self.keyring.authenticate(username, None if token is None else token.encode(), certificate)

    def refusal(
        self, token: str | None, username: str | None = DEVICE, certificate: Mapping[str, Any] | None = None
    ) -> RefusedError:
        with pytest.raises(RefusedError) as caught:
            self.enter(token, username, certificate)
        secret = (token or "").partition(".")[2]
        assert not secret or secret not in f"{caught.value} {caught.value.hint}"
        return caught.value


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def certificate(
    device: str = DEVICE, *, begin_us: int = START - HOUR, end_us: int = START + 24 * HOUR
) -> dict[str, Any]:
    """What `ssl` tells of a verified client certificate."""

    def spelt(time_us: int) -> str:
        return dt.datetime.fromtimestamp(time_us / SECOND, dt.UTC).strftime("%b %d %H:%M:%S %Y GMT")

    subject = ((("organizationName", "city"),), (("commonName", device),))
    return {"subject": subject, "notBefore": spelt(begin_us), "notAfter": spelt(end_us), "serialNumber": "0A1B"}


# ---- tokens


def test_a_device_gets_in_with_its_token_and_may_publish_on_its_own_topics_alone(town: Town) -> None:
    principal = town.enter(town.issue().token)
    assert principal.name == DEVICE
    assert principal.may_publish("qala/1/demo/air-1/t")
    assert not principal.may_publish("qala/1/demo/air-2/t")
    assert not principal.may_publish("qala/1/demo/air-1/t/more")
    assert town.keyring.still_holds(principal)


def test_a_gateway_may_publish_where_its_filters_say(town: Town) -> None:
    principal = town.enter(town.issue("roof", ["qala/1/demo/+/t", "senml/#"]).token, "roof")
    assert not principal.is_device
    assert principal.may_publish("qala/1/demo/air-9/t")
    assert principal.may_publish("senml/a/b")
    assert not principal.may_publish("qala/1/other/air-9/t")


def test_a_token_says_itself_whose_it_is_where_no_user_name_is_given(town: Town) -> None:
    assert town.enter(town.issue().token, None).name == DEVICE


def test_a_device_may_get_topics_of_other_formats(town: Town) -> None:
    principal = town.enter(town.issue(filters=["airgradient/readings/84fc"]).token)
    assert principal.may_publish("airgradient/readings/84fc")
    assert principal.may_publish("qala/1/demo/air-1/t")


def wrong(token: str) -> Mapping[str, tuple[str | None, str | None]]:
    """Return tokens and user names that are not right, by what is wrong with them."""
    id_, _, secret = token.partition(".")
    return {
        "no credential": (None, DEVICE),
        "an empty one": ("", DEVICE),
        "a wrong secret": (f"{id_}.{'A' * 43}", DEVICE),
        "an unknown id": (f"aaaaaaaa.{secret}", DEVICE),
        "the user name of another": (token, "demo/air-2"),
        "an empty user name": (token, ""),
        "no token at all": ("correct horse battery staple", DEVICE),
        "letters that are no ASCII": (f"{id_}.{'é' * 43}", DEVICE),
        "token and user name in each other's place": (DEVICE, token),
    }


@pytest.mark.parametrize("what", list(wrong("")))
def test_whoever_shows_something_else_is_refused(town: Town, what: str) -> None:
    issued = town.issue()
    token, username = wrong(issued.token)[what]
    error = town.refusal(token, username)
    assert error.answer == Code.BAD_CREDENTIALS
    assert issued.token.partition(".")[2] not in str(error)


def test_a_token_under_another_key_opens_nothing(town: Town, tmp_path: Path) -> None:
    token = town.issue().token
    key_file(tmp_path).write_bytes(os.urandom(32))
    assert town.refusal(token)


def test_a_token_ends_when_it_expires_without_another_look(town: Town) -> None:
    issued = town.issue(expires_us=START + HOUR)
    principal = town.enter(issued.token)
    town.now_us = START + HOUR - 1
    assert town.keyring.still_holds(principal)
    town.now_us = START + HOUR
    assert not town.keyring.still_holds(principal)
    with pytest.raises(RefusedError, match="expired"):
        town.keyring.authenticate(DEVICE, issued.token.encode(), None)


def test_a_look_tells_that_a_token_has_expired_so_that_connections_are_looked_at(town: Town) -> None:
    town.issue("demo/air-2")
    assert town.keyring.look()
    town.issue(expires_us=START + HOUR)
    assert town.keyring.look()
    assert not town.keyring.look()
    town.now_us = START + HOUR
    assert town.keyring.look()
    assert not town.keyring.look()


def test_both_tokens_are_right_while_a_rotation_lasts_and_the_new_one_alone_afterwards(town: Town) -> None:
    old = town.issue().token
    new = town.rotate(HOUR).token
    assert town.enter(old).name == town.enter(new).name == DEVICE
    town.now_us += HOUR
    assert town.refusal(old)
    assert town.enter(new)


def test_a_revoked_token_ends_at_the_next_look_and_the_other_one_stays(town: Town) -> None:
    first, second = town.issue(), town.issue()
    held = town.enter(first.token), town.enter(second.token)
    town.revoke(first)
    assert town.keyring.look()
    assert [town.keyring.still_holds(principal) for principal in held] == [False, True]
    assert town.refusal(first.token)
    assert town.enter(second.token)


def test_a_device_that_nobody_knows_gets_in_and_a_retired_one_does_not(town: Town) -> None:
    token = town.issue().token
    principal = town.enter(token)
    town.retire(DEVICE, START + HOUR)
    assert town.enter(token)
    town.now_us = START + HOUR
    assert town.refusal(token).answer == Code.NOT_AUTHORIZED
    assert not town.keyring.still_holds(principal)


# ---- certificates


def test_a_certificate_gets_in_the_device_that_it_names(town: Town) -> None:
    for username in (None, DEVICE):
        principal = town.enter(None, username, certificate())
        assert (principal.name, principal.may_publish("qala/1/demo/air-1/t")) == (DEVICE, True)
        assert not principal.may_publish("qala/1/demo/air-2/t")
        assert town.keyring.still_holds(principal)


@pytest.mark.parametrize(
    ("shown", "username"),
    [
        pytest.param(certificate(), "demo/air-2", id="the user name of another"),
        pytest.param(certificate("gateway"), None, id="no device"),
        pytest.param(certificate("demo/#"), None, id="a wildcard"),
        pytest.param(certificate("@owner"), None, id="the owner's name"),
        pytest.param({**certificate(), "subject": ()}, None, id="no name"),
        pytest.param({**certificate(), "subject": certificate()["subject"] * 2}, None, id="two names"),
        pytest.param(certificate(end_us=START - 1), None, id="expired"),
    ],
)
def test_a_certificate_of_anything_else_is_refused(town: Town, shown: Mapping[str, Any], username: str | None) -> None:
    assert town.refusal(None, username, shown)


def test_revoking_a_device_refuses_certificates_from_before_and_takes_later_ones(town: Town) -> None:
    principal = town.enter(None, None, certificate())
    assert town.revoke() == 0
    assert town.refusal(None, None, certificate())
    assert not town.keyring.still_holds(principal)
    assert town.enter(None, None, certificate(begin_us=START))
    assert town.enter(None, "demo/air-2", certificate("demo/air-2"))


def test_a_certificate_that_runs_out_holds_no_longer(town: Town) -> None:
    principal = town.enter(None, None, certificate(end_us=START + HOUR))
    town.now_us = START + HOUR + 1
    assert not town.keyring.still_holds(principal)


def test_who_shows_a_certificate_and_a_token_needs_both(town: Town) -> None:
    issued = town.issue()
    principal = town.enter(issued.token, DEVICE, certificate())
    assert town.keyring.still_holds(principal)
    assert town.refusal("aaaaaaaa." + "A" * 43, DEVICE, certificate())
    assert town.refusal(issued.token, None, certificate("demo/air-2"))
    town.revoke(issued)
    town.keyring.look()
    assert not town.keyring.still_holds(principal)


# ---- what is known


def test_a_first_start_without_a_state_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keyring = Keyring(f"sqlite:///{tmp_path}/state.sqlite", tmp_path, topic_root="qala")
    for _ in range(5):
        keyring.look()
    assert (keyring.trouble, caplog.records) == ("", [])
    assert not (tmp_path / "state.sqlite").exists()
    assert not key_file(tmp_path).exists()


def test_what_is_known_stays_while_the_state_cannot_be_read_and_is_told_once(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    token = town.issue().token
    town.enter(token)
    aside = town.folder / "aside.sqlite"
    town.state.dispose()
    (town.folder / "state.sqlite").rename(aside)
    for _ in range(5):
        town.keyring.look()
    assert town.keyring.trouble
    assert town.keyring.authenticate(DEVICE, token.encode(), None)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    aside.rename(town.folder / "state.sqlite")
    town.keyring.look()
    assert town.keyring.trouble == ""


def test_a_key_that_was_lost_is_told_and_taken_up_when_it_is_back(town: Town) -> None:
    token = town.issue().token
    aside = key_file(town.folder).rename(town.folder / "aside")
    for _ in range(5):
        assert town.refusal(token)
    assert "credential.key" in town.keyring.trouble
    aside.rename(key_file(town.folder))
    assert town.enter(token)
    assert town.keyring.trouble == ""


def test_a_state_that_was_restored_from_before_is_read_anew(town: Town, tmp_path: Path) -> None:
    old = town.issue().token
    town.state.dispose()
    backup = (tmp_path / "state.sqlite").read_bytes()
    town.state = open_state(town.url)
    new = town.issue().token
    assert town.enter(new)
    town.state.dispose()
    (tmp_path / "state.sqlite").unlink()
    (tmp_path / "state.sqlite").write_bytes(backup)
    assert town.enter(old)
    assert town.refusal(new)


def test_the_thread_takes_up_a_revocation_within_seconds_and_calls(town: Town) -> None:
    principal = town.enter(town.issue().token)
    called = threading.Event()
    town.keyring.start(called.set)
    try:
        town.revoke()
        assert called.wait(5)
        assert not town.keyring.still_holds(principal)
    finally:
        town.keyring.close()


def test_of_many_that_make_the_key_at_once_one_does_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path, made = key_file(tmp_path), list[bytes]()
    threads = [threading.Thread(target=lambda: made.append(make_key(path))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(made) == {read_key(path)}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["credential.key"]


def test_a_damaged_key_is_told_with_the_way_back(tmp_path: Path) -> None:
    key_file(tmp_path).write_bytes(b"short")
    with pytest.raises(CorruptError) as caught:
        make_key(key_file(tmp_path))
    assert "backup" in caught.value.hint


def test_an_unknown_user_costs_what_a_wrong_secret_costs(town: Town) -> None:
    known = town.issue().token
    shown = {
        "wrong": (DEVICE, f"{known[:8]}.{'A' * 43}".encode()),
        "unknown": ("demo/air-2", f"aaaaaaaa.{'A' * 43}".encode()),
        "malformed": (DEVICE, b"no token at all"),
    }
    town.keyring.look()

    def cost(what: str) -> float:
        begin = time.perf_counter()
        for _ in range(200):
            try:
                town.keyring.authenticate(*shown[what], None)
            except RefusedError:
                continue
        return time.perf_counter() - begin

    rounds = [{what: cost(what) for what in shown} for _ in range(15)]
    least = {what: min(each[what] for each in rounds) for what in shown}
    assert max(least.values()) < 1.5 * min(least.values()), least


def test_many_credentials_are_issued_at_once_and_only_to_those_that_have_none(town: Town) -> None:
    key = make_key(key_file(town.folder))
    wanted = [Issue(f"demo/air-{number}") for number in range(2_000)]
    issued = credentials.issue_missing(town.state, key, wanted, town.now_us)
    town.keyring.look()
    assert {town.enter(one.token, None).name for one in issued[::100]} == {each.principal for each in wanted[::100]}
    assert credentials.issue_missing(town.state, key, wanted, town.now_us) == []


# ---- what needs no state


def test_an_open_gate_lets_everybody_in_as_nobody() -> None:
    assert OpenGate().authenticate("x", b"y", None) is NOBODY
    assert OpenGate().still_holds(NOBODY)


def test_nobody_in_particular_and_the_owner_always_hold(town: Town) -> None:
    assert town.keyring.still_holds(NOBODY)
    assert town.keyring.still_holds(OWNER)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b", "a", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("+/b", "/b", True),
        ("a/+/c", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
    ],
)
def test_a_filter_matches_as_the_specification_says(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected
