"""Kinds are found where they are declared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.errors import ConfigError
from devices.kinds import kinds
from devices.quantity import QUANTITIES


def test_the_kinds_of_the_city_are_there() -> None:
    assert {name: (kind.domain, kind.interval_s) for name, kind in kinds().items()} == {
        "air_station": ("air", 60),
        "electricity_meter": ("energy", 60),
        "traffic_detector": ("traffic", 60),
        "weather_station": ("weather", 300),
    }


@pytest.mark.parametrize("name", kinds())
def test_a_kind_reports_known_quantities(name: str) -> None:
    assert set(kinds()[name].quantities) <= set(QUANTITIES)


@pytest.fixture
def one_more_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("devices.kinds.__path__", [str(tmp_path)])
    kinds.cache_clear()
    yield tmp_path
    kinds.cache_clear()


def test_one_more_file_is_one_more_kind(one_more_kind: Path) -> None:
    declaration = 'KIND = Kind("lamp_post", "Lamp post", "light", ("active_power",), 900)'
    (one_more_kind / "lamp_post.py").write_text(f"from devices.kind import Kind\n{declaration}\n")
    assert kinds()["lamp_post"].interval_s == 900


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "declares no KIND", id="no declaration"),
        pytest.param(
            'from devices.kind import Kind\nKIND = Kind("x", "X", "air", ("dragons",), 60)\n',
            "dragons",
            id="an unknown quantity",
        ),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(one_more_kind: Path, text: str, says: str) -> None:
    name = f"wrong_{len(text)}"
    (one_more_kind / f"{name}.py").write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        kinds()
    assert caught.value.hint
