"""The rehearsal city's settings: what is switched off does not happen, and `qala truth` tells what does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from devices.errors import ConfigError
from devices.rehearsal.faults import FAULTS, FaultKind
from qala.city import FaultRates, RehearsalSettings, rehearsal_city
from qala.cli import rehearsing  # noqa: F401 - declares the command
from qala.cli.shell import app
from qala.config import load_config

DAY_US = 86_400_000_000
MONDAY_US = 20_780 * DAY_US  # 2026-11-23
RANGE = ["--start", "2026-11-23", "--stop", "2026-11-24"]
MANY = {kind.value: 40.0 for kind in FaultKind}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work where no qala.toml lies."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(**given: Any) -> RehearsalSettings:
    return RehearsalSettings.model_validate({"devices": 30, "faults": MANY} | given)


def malformed(of: RehearsalSettings) -> int:
    """Count the payloads of a day that are not what the format describes."""
    day = rehearsal_city(of).messages(MONDAY_US, MONDAY_US + DAY_US)
    return sum(not is_well_formed(message.payload) for message in day)


def is_well_formed(payload: bytes) -> bool:
    try:
        body = json.loads(payload)
    except ValueError:
        return False
    return isinstance(body, dict) and {"t", "v"} <= body.keys() and not isinstance(body["t"], str)


def truth(*words: str) -> Any:
    done = CliRunner().invoke(app, ["truth", *words])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout) if "--json" in words else done.stdout


def test_the_default_rates_are_those_of_the_library() -> None:
    assert FaultRates().model_dump() == dict(FAULTS)


@pytest.mark.parametrize(
    "off",
    [
        pytest.param({"with_faults": False}, id="all at once"),
        pytest.param({"faults": dict.fromkeys(MANY, 0)}, id="one by one"),
    ],
)
def test_a_city_with_its_faults_switched_off_has_none(off: dict[str, Any]) -> None:
    assert rehearsal_city(settings()).truth(MONDAY_US, MONDAY_US + DAY_US)
    assert malformed(settings()) > 0
    assert rehearsal_city(settings(**off)).truth(MONDAY_US, MONDAY_US + DAY_US) == []
    assert malformed(settings(**off)) == 0


def test_one_kind_of_fault_can_be_switched_off_alone() -> None:
    of = settings(faults=MANY | {"stuck": 0})
    found = {fault.kind for fault in rehearsal_city(of).truth(MONDAY_US, MONDAY_US + DAY_US)}
    assert found == set(FaultKind) - {FaultKind.STUCK}


def test_the_environment_overrides_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("qala.toml").write_text("[rehearsal]\nseed = 7\ndevices = 12\n[rehearsal.faults]\nspike = 3\ngap = 4\n")
    monkeypatch.setenv("QALA_REHEARSAL__FAULTS__GAP", "0")
    monkeypatch.setenv("QALA_REHEARSAL__SEED", "8")
    rehearsal = load_config().rehearsal
    assert (rehearsal.seed, rehearsal.devices, rehearsal.faults.spike, rehearsal.faults.gap) == (8, 12, 3, 0)
    assert rehearsal.faults.stuck == FAULTS[FaultKind.STUCK]


def test_a_fault_that_does_not_exist_is_a_mistake_with_a_hint() -> None:
    Path("qala.toml").write_text("[rehearsal.faults]\nstuk = 0\n")
    with pytest.raises(ConfigError, match=r"did you mean 'rehearsal\.faults\.stuck'"):
        load_config()


def test_truth_prints_what_the_configured_city_knows() -> None:
    Path("qala.toml").write_text("[rehearsal]\nseed = 3\ndevices = 60\n[rehearsal.faults]\nspike = 100\n")
    told = rehearsal_city(load_config().rehearsal).truth(MONDAY_US, MONDAY_US + DAY_US)
    rows = truth("--json", *RANGE)
    assert [(row["device"], row["kind"], row["detail"]) for row in rows] == [
        (fault.device, fault.kind, fault.detail) for fault in told
    ]
    assert all(row["start"] < "2026-11-24" and row["end"] > "2026-11-23" for row in rows)
    assert rows[0]["start"].endswith("Z")


def test_truth_can_be_asked_of_a_device_and_of_a_kind_of_fault() -> None:
    rows = truth("--json", *RANGE)
    one = next(row for row in rows if row["kind"] == "spike")
    assert truth("--json", "--device", one["device"], "--kind", "spike", *RANGE) == [
        row for row in rows if row["device"] == one["device"] and row["kind"] == "spike"
    ]
    assert f"added={one['detail']['added']}" in truth("--device", one["device"], *RANGE)
    assert isinstance(CliRunner().invoke(app, ["truth", "--kind", "stuk"]).exception, ConfigError)


def test_truth_is_silent_of_a_city_without_faults() -> None:
    Path("qala.toml").write_text("[rehearsal]\nwith_faults = false\n")
    assert truth("--json", *RANGE) == []
    Path("qala.toml").write_text("")
    assert truth("--json", "--start", "2019-12-20", "--stop", "2020-01-01") == [], "there is nothing before the city"
