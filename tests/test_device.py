"""Devices, zones and placements: the registry, and the files they are read from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devices.device import Clock, Device, Placement, Registry, Zone
from devices.errors import ConfigError
from devices.files import parse_devices
from devices.zone_file import parse_zones

POINT = {"type": "Point", "coordinates": [77.1, 43.67]}
SQUARE = {"type": "Polygon", "coordinates": [[[77.0, 43.6], [77.1, 43.6], [77.1, 43.7], [77.0, 43.6]]]}
LINE = {"type": "LineString", "coordinates": [[77.0, 43.6], [77.1, 43.7]]}


def site(zone: str) -> Zone:
    return Zone(zone, "site", {"en": zone}, POINT)


def feature(geometry: Any = POINT, zone: Any = "z1", **properties: Any) -> dict[str, Any]:
    named = {"kind": "site", "names": {"en": "Depot"}, **properties}
    return {"type": "Feature", "id": zone, "properties": named, "geometry": geometry}


def collection(*features: Any) -> str:
    return json.dumps({"type": "FeatureCollection", "features": features})


def test_a_device_that_moved_stood_where_it_was_at_the_time() -> None:
    early = Placement("city/a1", ("old",), since_us=0, until_us=100)
    late = Placement("city/a1", ("new",), since_us=200)
    registry = Registry([Device("city/a1", "air_station")], [site("old"), site("new")], [late, early])
    assert [registry.placement("city/a1", at) for at in (0, 99, 100, 199, 200)] == [early, early, None, None, late]
    assert registry.placements_of("city/a1") == (early, late)
    assert registry.placement("city/other", 0) is None


@pytest.mark.parametrize(
    ("placement", "says"),
    [
        pytest.param(Placement("city/ghost", ()), "city/ghost", id="an unknown device"),
        pytest.param(Placement("city/a1", ("atlantis",)), "atlantis", id="an unknown zone"),
    ],
)
def test_a_placement_of_what_does_not_exist_is_refused(placement: Placement, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Registry([Device("city/a1", "air_station")], [site("s")], [placement])
    assert caught.value.hint


CSV = """\
id,kind,name,zones,lat,lon,since,until,interval_s,clock,rated_kw,modulus,retired
city/a1,air_station,"Station 1, roof",d1 s1,43.67,77.1,,2026-03-01T00:00:00+05:00,300,,,,
city/a1,air_station,,d2,,,2026-03-01T00:00:00+05:00,,,,,,

city/m1,electricity_meter,,f1,,,,,,received,120,1000000,2026-06-01T00:00:00Z
"""
YAML = """\
devices:
  - id: city/a1
    kind: air_station
    name: Station 1, roof
    zones: [d1, s1]
    lat: 43.67
    lon: 77.1
    until: 2026-03-01T00:00:00+05:00
    interval_s: 300
  - {id: city/a1, kind: air_station, zones: d2, since: 2026-03-01T00:00:00+05:00}
  - id: city/m1
    kind: electricity_meter
    zones: [f1]
    clock: received
    rated_kw: 120
    modulus: 1000000
    retired: "2026-06-01T00:00:00Z"
"""
MARCH_US = 1_772_305_200_000_000
JUNE_US = 1_780_272_000_000_000


def test_csv_and_yaml_say_the_same() -> None:
    devices, placements = parse_devices(CSV, "csv")
    assert devices == [
        Device("city/a1", "air_station", "Station 1, roof", interval_s=300),
        Device(
            "city/m1",
            "electricity_meter",
            clock=Clock.RECEIVED,
            rated_kw=120.0,
            modulus=1_000_000.0,
            until_us=JUNE_US,
        ),
    ]
    assert placements == [
        Placement("city/a1", ("d1", "s1"), 43.67, 77.1, until_us=MARCH_US),
        Placement("city/a1", ("d2",), since_us=MARCH_US),
        Placement("city/m1", ("f1",)),
    ]
    assert parse_devices(YAML, "yaml") == (devices, placements)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        pytest.param("a1,air_station,", "line 2, field 'id'", id="an id without a fleet"),
        pytest.param("city/a 1,air_station,", "line 2, field 'id'", id="an id with a space"),
        pytest.param(",air_station,", "line 2, field 'id'", id="no id"),
        pytest.param("city/a1,airstation,", "line 2, field 'kind': 'airstation'", id="an unknown kind"),
        pytest.param("city/a1,,", "line 2, field 'kind'", id="no kind"),
        pytest.param("city/a1,air_station,d1 d1", "line 2, field 'zones'", id="a zone twice"),
        pytest.param("city/a1,air_station,,91,77", "line 2, field 'lat'", id="beyond the pole"),
        pytest.param("city/a1,air_station,,43.6,", "line 2, field 'lon'", id="half a position"),
        pytest.param("city/a1,air_station,,,,2026-03-01", "line 2, field 'since'", id="a time without an offset"),
        pytest.param("city/a1,air_station,,,,soon", "line 2, field 'since': 'soon'", id="no time at all"),
        pytest.param("city/a1,air_station,,,,,,fast", "line 2, field 'interval_s'", id="no number"),
        pytest.param("city/a1,air_station,,,,,,nan", "line 2, field 'interval_s'", id="not finite"),
        pytest.param("city/a1,air_station,,,,,,,sundial", "line 2, field 'clock'", id="an unknown clock"),
        pytest.param(
            "city/a1,air_station,,,,2026-03-01T00:00Z,2026-02-01T00:00Z", "field 'until'", id="it ends before it begins"
        ),
        pytest.param("city/a1,air_station,\ncity/a1,air_station,", "line 3, field 'since'", id="in two places at once"),
        pytest.param("city/a1,air_station,\ncity/a1,weather_station,", "line 3, field 'kind'", id="two kinds"),
        pytest.param("city/a1,air_station,,,,,,,,and,more", "more cells", id="too many cells"),
        pytest.param('city/a1,"air', "line 2", id="an open quote"),
    ],
)
def test_a_wrong_row_is_named_by_line_and_field(row: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_devices(f"id,kind,zones,lat,lon,since,until,interval_s,clock\n{row}\n", "csv")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "format_", "says"),
    [
        pytest.param("id,kind,colour\n", "csv", "colour", id="an unknown column"),
        pytest.param("- {id: city/a1, kind: air_station, colour: red}", "yaml", "line 1, field 'colour'", id="a field"),
        pytest.param("- id: city/a1\n  kind: 7", "yaml", "line 1, field 'kind'", id="a number for a name"),
        pytest.param("- city/a1", "yaml", "line 1, field 'kind'", id="no fields"),
        pytest.param("devices: [", "yaml", "not YAML", id="no YAML"),
        pytest.param("stations: []", "yaml", "no list of devices", id="no devices"),
        pytest.param("- !!python/object:os.system {}", "yaml", "not YAML", id="no code in data"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, format_: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_devices(text, format_)
    assert caught.value.hint


def test_an_empty_file_has_no_devices() -> None:
    assert parse_devices("", "csv") == ([], [])
    assert parse_devices("devices: []", "yaml") == ([], [])


def test_zones_are_read_in_order() -> None:
    zones = parse_zones(
        collection(
            feature(SQUARE, "d1", kind="district", names={"en": "Old Town", "ru": "Старый город"}),
            feature(LINE, "r1", kind="road", parent="d1", free_flow_kmh=60, length_m=1500),
            feature(SQUARE, "f1", kind="feeder", rated_kw=2500),
        )
    )
    assert zones == [
        Zone("d1", "district", {"en": "Old Town", "ru": "Старый город"}, SQUARE),
        Zone("r1", "road", {"en": "Depot"}, LINE, parent="d1", free_flow_kmh=60.0, length_m=1500.0),
        Zone("f1", "feeder", {"en": "Depot"}, SQUARE, rated_kw=2500.0),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("{", "not JSON", id="no JSON"),
        pytest.param('{"type": "Feature"}', "no FeatureCollection", id="a lone feature"),
        pytest.param(collection(7), "feature 1, field 'type'", id="no feature"),
        pytest.param(collection(feature(), feature()), "feature 2 .z1., field 'id'", id="an id twice"),
        pytest.param(collection(feature(zone=7)), "field 'id'", id="a number for an id"),
        pytest.param(collection(feature(zone="a b")), "field 'id'", id="an id with a space"),
        pytest.param(collection(feature(kind="galaxy")), "field 'kind': 'galaxy'", id="an unknown kind"),
        pytest.param(collection(feature(names={})), "field 'names'", id="no name"),
        pytest.param(collection(feature(parent="d9")), "field 'parent'", id="an unknown parent"),
        pytest.param(collection(feature(LINE, kind="road")), "field 'free_flow_kmh': is missing", id="no free flow"),
        pytest.param(
            collection(feature(LINE, kind="road", free_flow_kmh=0)), "field 'free_flow_kmh'", id="a free flow of 0"
        ),
        pytest.param(collection(feature(rated_kw="2")), "field 'rated_kw'", id="text for a number"),
        pytest.param(collection(feature(POINT, kind="district")), "a district is no Point", id="the wrong shape"),
        pytest.param(collection(feature({"type": ["Point"]})), "field 'geometry'", id="no shape"),
        pytest.param(collection(feature(None)), "field 'geometry'", id="no geometry"),
        pytest.param(
            collection(feature({"type": "Point", "coordinates": [43.67, 177.1]})),
            "WGS 84",
            id="swapped beyond the pole",
        ),
        pytest.param(
            collection(feature({"type": "Polygon", "coordinates": [SQUARE["coordinates"][0][:3]]}, kind="district")),
            "not closed",
            id="an open ring",
        ),
    ],
)
def test_a_wrong_zone_is_named_by_feature_and_field(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_zones(text)
    assert caught.value.hint
