"""Indicator vectors: published numbers, and those of independent programs, against the formulas that indicators use.

The project's own file always; a second one (QALA_VECTORS, or the reference beside the checkout) where it is present.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analytics.breakpoints import aqi, european_band, so2_aqi, truncate
from analytics.energy import load_factor, peak_kw
from analytics.gases import ug_m3_per_ppb
from analytics.nowcast import pm_nowcast
from analytics.registers import register_deltas
from analytics.traffic import congestion_level, travel_time_index
from analytics.window import (
    circular_mean,
    energetic_mean,
    harmonic_mean,
    is_complete,
    mean,
    weighted_mean,
)

OWN = Path(__file__).with_name("vectors.csv")
SHARED = Path(os.environ.get("QALA_SHARED", Path(__file__).parents[2] / "shared"))
OTHER = Path(os.environ.get("QALA_VECTORS", SHARED / "reference" / "indicator_vectors.csv"))
OWN_LEAST, OTHER_LEAST = 60, 95

Inputs = dict[str, Any]


def column(*values: float | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def one(values: Any) -> Any:
    """Return the single number of an array, None for NaN."""
    number = float(np.asarray(values).reshape(-1)[0])
    return None if math.isnan(number) else number


def alike(values: list[float]) -> Any:
    return np.zeros(len(values), np.int64), column(*values)


def _aqi(i: Inputs) -> Any:
    return one(aqi(i["pollutant"].replace("pm25", "pm2_5"), column(i["conc"])))


def _overall(i: Inputs) -> Any:
    return max(_aqi({"pollutant": name, "conc": concentration}) for name, concentration in i.items())


def _so2(i: Inputs) -> Any:
    hours = i["so2_1h_ppb"]
    return one(so2_aqi(column(max(hours)), column(sum(hours) / len(hours))))


def _nowcast(i: Inputs) -> Any:
    return one(pm_nowcast(column(*i["hourly_oldest_first"])))


def _nowcast_aqi(i: Inputs) -> Any:
    return one(aqi("pm2_5_24h", truncate(column(_nowcast(i)), 1)))


def _register(i: Inputs) -> Any:
    limits = column(i["modulus"]), column(i["max_plausible_delta"])
    return one(register_deltas(column(i["prev"]), column(i["cur"]), *limits)[0])


def _space_mean(i: Inputs) -> Any:
    group, speed = alike(i["speeds"])
    weight = column(*i.get("flows", [1.0] * len(speed)))
    return one(harmonic_mean(group, speed, weight, 1))


def _time_mean(i: Inputs) -> Any:
    group, speed = alike(i["speeds"])
    return one(weighted_mean(group, speed, column(*i["flows"]), 1) if "flows" in i else mean(group, speed, 1))


FORMULAS: dict[str, Callable[[Inputs], Any]] = {
    "epa_aqi_2024": _aqi,
    "epa_aqi_2024_overall": _overall,
    "epa_aqi_2024_so2_rule": _so2,
    "epa_nowcast_pm": _nowcast,
    "epa_nowcast_pm25_aqi": _nowcast_aqi,
    "eaqi_2024_band": lambda i: one(european_band(i["pollutant"], column(i["conc_ugm3"]))),
    "space_mean_speed": _space_mean,
    "time_mean_speed": _time_mean,
    "travel_time_index": lambda i: travel_time_index(i["mean_min"], i["free_flow_min"]),
    "u4ssc_travel_time_index": lambda i: travel_time_index(i["peak_min"], i["free_flow_min"]),
    "congestion_level": lambda i: one(congestion_level(column(i["travel_time_index"]))),
    "register_delta": _register,
    "peak_demand": lambda i: peak_kw(i["kwh_15min"], 900),
    "load_factor": lambda i: one(load_factor(i["kwh"], i["peak_kw"], i["hours"])),
    "completeness": lambda i: is_complete(i["valid"], i["possible"]),
    "ppb_to_ugm3": lambda i: i["ppb"] * ug_m3_per_ppb(i["gas"], i["t_c"], i["p_hpa"]),
    "ppm_to_mgm3": lambda i: i["ppm"] * ug_m3_per_ppb(i["gas"], i["t_c"], i["p_hpa"]),
    "mgm3_to_ppm": lambda i: i["mgm3"] / ug_m3_per_ppb(i["gas"], i["t_c"], i["p_hpa"]),
    "noise_leq": lambda i: one(energetic_mean(*alike(i["levels_db"]), 1)),
    "wind_direction_mean": lambda i: one(circular_mean(*alike(i["degrees"]), 1)),
}
"""Names in vector files, and the formula each of them is about."""


def rows(path: Path) -> Iterator[Any]:
    """Yield every row whose indicator exists."""
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if row["indicator"] in FORMULAS:
                yield pytest.param(row, id=f"{row['indicator']}-line{number}")


def agrees(row: dict[str, str]) -> bool:
    expected = json.loads(row["expected"])
    found = FORMULAS[row["indicator"]](json.loads(row["inputs_json"]))
    if expected is None or found is None or isinstance(expected, bool):
        return found is expected
    return abs(found - expected) <= float(row["tolerance"]) + 1e-9 * max(1.0, abs(expected))


@pytest.mark.parametrize("row", list(rows(OWN)))
def test_our_own_vector(row: dict[str, str]) -> None:
    assert agrees(row), row


@pytest.mark.parametrize(
    "row", list(rows(OTHER)) or [pytest.param({}, marks=pytest.mark.skip(f"no indicator vectors at {OTHER}"))]
)
def test_a_vector_of_the_reference(row: dict[str, str]) -> None:
    assert agrees(row), row


def test_our_own_vectors_are_many_name_their_sources_and_use_every_formula() -> None:
    found = [param.values[0] for param in rows(OWN)]
    assert len(found) >= OWN_LEAST
    assert all(row["source"] for row in found)
    assert {row["indicator"] for row in found} == set(FORMULAS)


def test_enough_vectors_of_the_reference_run() -> None:
    if not OTHER.is_file():
        pytest.skip(f"no indicator vectors at {OTHER}; set QALA_VECTORS to a file of them")
    assert len(list(rows(OTHER))) >= OTHER_LEAST
