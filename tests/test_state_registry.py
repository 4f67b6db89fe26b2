"""The registry in the state: what is declared, where devices stood, and what each import changes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import Engine, text

from devices.device import Clock, Device, Placement, Zone
from devices.errors import ConfigError, ConflictError, CorruptError, NotFoundError, VersionError
from devices.reading import Position
from qala.state import open_state
from qala.state.registry import (
    Candidate,
    DeviceMetadata,
    DeviceStatus,
    admit,
    candidates,
    import_registry,
    load_registry,
    metadata,
    put_metadata,
    put_status,
    record_candidates,
    statuses,
)

MONDAY, TUESDAY, WEDNESDAY = 1_000_000, 2_000_000, 3_000_000


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Engine]:
    engine = open_state(f"sqlite:///{tmp_path}/state.sqlite")
    yield engine
    engine.dispose()


def zone(zone_id: str, kind: str = "district") -> Zone:
    return Zone(id=zone_id, kind=kind, names={"en": zone_id}, geometry={"type": "Point", "coordinates": (76.9, 43.3)})


def station(device_id: str = "air/a1", **fields: object) -> Device:
    return Device(id=device_id, kind="air_station", **fields)  # type: ignore[arg-type]


def stands(*zones: str, device: str = "air/a1", since_us: int = 0, until_us: int | None = None) -> Placement:
    return Placement(device=device, zones=zones, lat=43.3, lon=76.9, since_us=since_us, until_us=until_us)


ZONES = [zone("north"), zone("south"), zone("east")]


def history(state: Engine, table: str) -> int:
    with state.connect() as connection:
        return int(connection.execute(text(f"select count(*) from {table}")).scalar_one())


def test_what_is_imported_is_loaded_again(state: Engine) -> None:
    device = station(name="Abay Street", interval_s=300, clock=Clock.RECEIVED, rated_kw=1.5, modulus=1e6)
    import_registry(state, [device], ZONES, [stands("north")], MONDAY)

    registry = load_registry(state)

    assert registry.devices == {"air/a1": device}
    assert set(registry.zones) == {"north", "south", "east"}
    assert registry.placements == (stands("north"),)


def test_importing_the_same_again_changes_nothing(state: Engine) -> None:
    declared = ([station()], ZONES, [stands("north"), stands("south", since_us=TUESDAY)])

    assert import_registry(state, *declared, MONDAY) == 6
    assert import_registry(state, *declared, WEDNESDAY) == 0


def test_a_changed_device_keeps_its_history(state: Engine) -> None:
    import_registry(state, [station(interval_s=60)], [], [], MONDAY)
    assert import_registry(state, [station(interval_s=300)], [], [], TUESDAY) == 1

    assert load_registry(state).devices["air/a1"].interval_s == 300
    with state.connect() as connection:
        rows = connection.execute(text("select interval_s, recorded_us, replaced_us from device order by row")).all()
    assert [tuple(row) for row in rows] == [(60, MONDAY, TUESDAY), (300, TUESDAY, None)]


@pytest.mark.parametrize(
    ("placements", "expected"),
    [
        pytest.param(
            [stands("south")],
            (stands("north", until_us=TUESDAY), stands("south", since_us=TUESDAY)),
            id="an undated move happens at the import",
        ),
        pytest.param(
            [stands("south", since_us=1_500_000)],
            (stands("north", until_us=1_500_000), stands("south", since_us=1_500_000)),
            id="a dated move happens at its date",
        ),
        pytest.param(
            [stands("south", since_us=500_000, until_us=600_000)],
            (
                stands("north", until_us=500_000),
                stands("south", since_us=500_000, until_us=600_000),
                stands("north", since_us=600_000),
            ),
            id="a visit elsewhere splits the stay",
        ),
        pytest.param(
            [stands("south"), stands("east", since_us=TUESDAY)],
            (stands("south", until_us=TUESDAY), stands("east", since_us=TUESDAY)),
            id="a whole history replaces what it covers",
        ),
        pytest.param([stands("north")], (stands("north"),), id="staying changes nothing"),
    ],
)
def test_a_device_that_moved_closes_its_old_placement(
    state: Engine, placements: list[Placement], expected: tuple[Placement, ...]
) -> None:
    import_registry(state, [station()], ZONES, [stands("north")], MONDAY)
    import_registry(state, [], [], placements, TUESDAY)
    assert load_registry(state).placements == expected


def test_a_placement_in_an_unknown_zone_changes_nothing(state: Engine) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        import_registry(state, [station()], ZONES, [stands("nowhere")], MONDAY)
    assert load_registry(state).devices == {}
    assert history(state, "zone") == 0


def test_admitting_a_candidate_makes_it_a_device(state: Engine) -> None:
    import_registry(state, [], ZONES, [], MONDAY)
    record_candidates(state, [Candidate("air/a1", 10, 20, 3), Candidate("air/a2", 11, 11, 1)], Position("j", 5))

    admit(state, station(), stands("north"), TUESDAY)

    assert load_registry(state).placement("air/a1", TUESDAY) == stands("north")
    assert [candidate.device for candidate in candidates(state)] == ["air/a2"]
    with pytest.raises(ConflictError):
        admit(state, station(), None, WEDNESDAY)
    with pytest.raises(NotFoundError):
        admit(state, station("air/a2"), stands("nowhere", device="air/a2"), WEDNESDAY)


def test_of_many_who_admit_a_device_at_once_one_does(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    engines = [open_state(url) for _ in range(6)]
    start = Barrier(len(engines))

    def try_to_admit(engine: Engine) -> bool:
        start.wait()
        try:
            admit(engine, Device("city/new", "air_station"), None, 1)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(len(engines)) as pool:
        assert sorted(pool.map(try_to_admit, engines)) == [False] * 5 + [True]
    for engine in engines:
        engine.dispose()


def test_a_batch_that_is_repeated_counts_its_candidates_once(state: Engine) -> None:
    first, second = [Candidate("air/x", 10, 20, 3)], [Candidate("air/x", 5, 30, 2)]
    record_candidates(state, first, Position("j", 5))
    record_candidates(state, second, Position("j", 9))
    record_candidates(state, second, Position("j", 9))
    assert candidates(state) == [Candidate("air/x", first_us=5, last_us=30, messages=5)]


def test_the_newest_status_and_metadata_of_a_device_stay(state: Engine) -> None:
    put_status(state, [DeviceStatus("air/a1", online=True, firmware="2.0", at_us=TUESDAY)])
    put_status(state, [DeviceStatus("air/a1", online=False, at_us=MONDAY)])
    assert statuses(state) == {"air/a1": DeviceStatus("air/a1", online=True, firmware="2.0", at_us=TUESDAY)}

    about = DeviceMetadata("air/a1", model="M5", units={"ozone": "ppb"}, counters=("steps",), at_us=MONDAY)
    put_metadata(state, [about])
    assert metadata(state) == {"air/a1": about}


@pytest.mark.parametrize("start", [pytest.param(0, id="its header"), pytest.param(8192, id="a table")])
def test_a_damaged_file_is_named_with_a_way_back(tmp_path: Path, start: int) -> None:
    path = tmp_path / "state.sqlite"
    engine = open_state(f"sqlite:///{path}")
    engine.dispose()
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + b"\x5a" * (len(whole) - start))
    with pytest.raises(CorruptError, match=r"state\.sqlite is damaged") as caught:
        load_registry(open_state(f"sqlite:///{path}"))
    assert "backup" in caught.value.hint


def test_a_newer_schema_is_refused_with_a_hint(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    engine = open_state(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version = 99"))
    engine.dispose()
    with pytest.raises(VersionError, match="schema version 99") as caught:
        open_state(url)
    assert "newer Qala" in caught.value.hint
