"""What a recording must come to, computed with pandas from the words of the methods. Imports nothing of Qala.

Every function takes the recording as a frame of readings (zone, device, quantity, time [s], span [s], interval [s], value;
NaN for null), one row a reading, and returns a series of numbers by (zone, window start [s]); NaN where there are readings
and no number. Written to be read beside docs and standards, not to be fast.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pandas as pd

HOUR = 3600
DAY_SHARE = 0.75

# quantity: (lowest and highest that counts, largest change of an hour, lone peak, seconds without movement, smallest movement)
CHECKS = {
    "pm2_5": (0, 800, 400, 150, 6 * HOUR, 0.1),
    "pm10": (0, 1500, 1000, 400, 6 * HOUR, 0.1),
    "no2": (0, 575, 575, 190, 6 * HOUR, 0.2),
    "so2": (0, 1330, 800, 270, 6 * HOUR, 0.2),
    "o3": (0, 400, 300, 120, 6 * HOUR, 0.2),
    "co": (0, 35, 35, 12, 12 * HOUR, 0.01),
    "speed": (3, 140, math.inf, math.inf, 2 * HOUR, 0.1),
    "vehicle_count": (0, math.inf, math.inf, math.inf, HOUR, 1.0),
    "energy": (0, 100_000, math.inf, math.inf, math.inf, 0.0),
    "energy_import": (0, math.inf, math.inf, math.inf, math.inf, 0.0),
}
MOLAR_MASS = {"no2": 46.0055, "so2": 64.064, "o3": 47.9982, "co": 28.010}

AQI = {  # upper ends of the concentrations of each segment (US EPA, 2024), and their number of decimals
    "pm2_5": (1, [9.0, 35.4, 55.4, 125.4, 225.4, 325.4]),
    "pm10": (0, [54, 154, 254, 354, 424, 604]),
    "no2": (0, [53, 100, 360, 649, 1249, 2049]),
    "so2_1h": (0, [35, 75, 185, 304]),
    "so2_24h": (0, [None, None, None, 304, 604, 1004]),
    "co": (1, [4.4, 9.4, 12.4, 15.4, 30.4, 50.4]),
    "o3_8h": (3, [0.054, 0.070, 0.085, 0.105, 0.200]),
    "o3_1h": (3, [None, 0.124, 0.164, 0.204, 0.404, 0.604]),
}
INDEX = [(0, 50), (51, 100), (101, 150), (151, 200), (201, 300), (301, 500)]
EUROPEAN = {
    "pm2_5": [5, 15, 50, 90, 140],
    "pm10": [15, 45, 120, 195, 270],
    "no2": [10, 25, 60, 100, 150],
    "o3": [60, 100, 120, 160, 180],
    "so2": [20, 40, 125, 190, 275],
}


def usable(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the readings that every quality check lets pass."""
    kept = [_passed(quantity, series) for (_, quantity), series in frame.groupby(["device", "quantity"], sort=False)]
    return pd.concat(kept)


def _passed(quantity: str, series: pd.DataFrame) -> pd.DataFrame:
    low, high, step, spike, still_s, movement = CHECKS.get(
        quantity, (-math.inf, math.inf, math.inf, math.inf, math.inf, 0)
    )
    good = series[series.value.between(low, high)].sort_values("time")
    rows = list(zip(good.time, good.value, strict=True))
    lone = {i for i in range(1, len(rows) - 1) if _stands_out(rows[i - 1 : i + 2], spike)}
    good = good[[i not in lone for i in range(len(rows))]]
    rows = [row for i, row in enumerate(rows) if i not in lone]
    rests = 0.0 if quantity == "vehicle_count" else None
    bad = [
        (i > 0 and rows[i][0] - rows[i - 1][0] <= HOUR and abs(rows[i][1] - rows[i - 1][1]) > step)
        or (rows[i][1] != rests and _stands_still(rows, i, still_s, movement))
        for i in range(len(rows))
    ]
    return good[[not b for b in bad]]


def _stands_out(three: list[tuple[float, float]], spike: float) -> bool:
    (t0, before), (t1, here), (t2, after) = three
    near = t1 - t0 <= 600 and t2 - t1 <= 600
    return near and (here - before) * (here - after) > 0 and min(abs(here - before), abs(here - after)) > spike


def _stands_still(rows: list[tuple[float, float]], i: int, still_s: float, movement: float) -> bool:
    if math.isinf(still_s):
        return False
    j, low, high = i, rows[i][1], rows[i][1]
    while rows[i][0] - rows[j][0] < still_s:
        if j == 0 or rows[j][0] - rows[j - 1][0] > still_s / 3:
            return False
        j -= 1
        low, high = min(low, rows[j][1]), max(high, rows[j][1])
        if high - low > movement - 1e-9:
            return False
    return True


def _windows(frame: pd.DataFrame, width: int) -> pd.DataFrame:
    """Put readings into windows of a width, leaving out what is too coarse for it."""
    fine = frame[(frame.span <= width) & (frame.interval <= width)]
    return fine.assign(window=fine.time // width * width)


def speeds(frame: pd.DataFrame, width: int) -> pd.Series:
    """Space-mean speed [km/h]: sum(q) / sum(q / v); speeds without a count weigh the same where no count is to be had."""
    speed = frame[frame.quantity == "speed"]
    seen = _windows(speed, width)
    good = _windows(usable(speed), width)
    counts = frame[frame.quantity == "vehicle_count"]
    counts = (
        usable(counts)[["device", "time", "value", "span"]] if len(counts) else pd.DataFrame(columns=["device", "time"])
    )
    good = good.merge(counts, on=["device", "time"], how="left", suffixes=("", "_count"))
    numbers = {}
    for key, here in seen.groupby(["zone", "window"]):
        owed = sum(width // one.interval.iloc[0] for _, one in here.groupby("device"))
        mine = good[(good.zone == key[0]) & (good.window == key[1])]
        numbers[key] = _harmonic(mine) if len(mine) >= 0.75 * owed else math.nan
    return pd.Series(numbers)


def _harmonic(rows: pd.DataFrame) -> float:
    rows = rows[rows.value > 0]
    flow = rows.value_count / rows.span_count if "value_count" in rows else pd.Series(math.nan, rows.index)
    rows, flow = (rows[flow.notna()], flow[flow.notna()]) if flow.notna().any() else (rows, flow.fillna(1.0))
    return flow.sum() / (flow / rows.value).sum() if flow.sum() > 0 else math.nan


def travel_time_index(frame: pd.DataFrame, width: int, free_flow: dict[str, float]) -> pd.Series:
    """Free-flow speed over space-mean speed."""
    speed = speeds(frame, width)
    return pd.Series({key: free_flow[key[0]] / value for key, value in speed.items()})


def congestion_level(frame: pd.DataFrame, width: int, free_flow: dict[str, float]) -> pd.Series:
    """How much longer than in free flow a trip takes [%]."""
    return 100 * (travel_time_index(frame, width, free_flow) - 1)


def hours(frame: pd.DataFrame, quantity: str) -> pd.Series:
    """District means by hour: stations with three quarters of their readings, districts with half of all."""
    readings = frame[frame.quantity == quantity]
    if readings.empty:
        return pd.Series(dtype=float)
    seen, good = _windows(readings, HOUR), _windows(usable(readings), HOUR)
    numbers = {}
    for key, here in seen.groupby(["zone", "window"]):
        owed = {device: HOUR // one.interval.iloc[0] for device, one in here.groupby("device")}
        mine = good[(good.zone == key[0]) & (good.window == key[1])].groupby("device").value
        means = [one.mean() for device, one in mine if len(one) >= 0.75 * owed[device]]
        there = sum(min(len(one), owed[device]) for device, one in mine)
        numbers[key] = sum(means) / len(means) if means and there >= 0.5 * sum(owed.values()) else math.nan
    return pd.Series(numbers)


def us_index(pollutant: str, concentration: float) -> float:
    """US AQI of one concentration by the table of 2024; NaN where it has none."""
    digits, tops = AQI[pollutant]
    if math.isnan(concentration):
        return math.nan
    c = math.floor(round(concentration, 6) * 10**digits + 1e-9) / 10**digits
    step, low = 10.0**-digits, 0.0
    segments = []
    for top, index in zip(tops, INDEX, strict=False):
        if top is not None and low is not None:
            segments.append((low, top, *index))
        low = None if top is None else round(top + step, digits)
    if tops[0] is None:
        first = next(i for i, top in enumerate(tops) if top is not None)
        segments = [s for s in segments if s[2] > INDEX[first][0]]
    if c < segments[0][0] - 1e-9 or (c > segments[-1][1] + 1e-9 and segments[-1][3] < 500):
        return math.nan
    low, top, first, last = next((s for s in segments if c <= s[1] + 1e-9), segments[-1])
    return math.floor((last - first) * (c - low) / (top - low) + first + 0.5 + 1e-9)


def nowcast_aqi(frame: pd.DataFrame) -> pd.Series:
    """US AQI of the worse NowCast of PM2.5 and PM10, hour by hour."""
    both = {name: hours(frame, name) for name in ("pm2_5", "pm10")}
    numbers = {}
    for zone, window in sorted(set(both["pm2_5"].index) | set(both["pm10"].index)):
        indices = []
        for name, of in both.items():
            last12 = [of.get((zone, window - age * HOUR), math.nan) for age in range(12)]
            digits = AQI[name][0]
            cast = nowcast(last12)
            indices.append(
                us_index(name, cast if math.isnan(cast) else math.floor(round(cast, 6) * 10**digits) / 10**digits)
            )
        numbers[zone, window] = _worst(indices)
    return pd.Series(numbers)


def nowcast(newest_first: list[float]) -> float:
    """EPA's NowCast of twelve hourly means."""
    if sum(not math.isnan(c) for c in newest_first[:3]) < 2:
        return math.nan
    known = [(age, c) for age, c in enumerate(newest_first) if not math.isnan(c)]
    low, high = min(c for _, c in known), max(c for _, c in known)
    weight = max(low / high, 0.5) if high else 1.0
    return sum(weight**age * c for age, c in known) / sum(weight**age for age, _ in known)


def european_aqi(frame: pd.DataFrame) -> pd.Series:
    """Worst European band of the hour's district means."""
    bands: dict[tuple[str, int], list[float]] = {}
    for name, tops in EUROPEAN.items():
        for key, c in hours(frame, name).items():
            band = math.nan if math.isnan(c) else 1 + sum(round(c, 6) > top for top in tops)
            bands.setdefault(key, []).append(band)
    return pd.Series({key: _worst(of) for key, of in bands.items()})


def aqi(frame: pd.DataFrame, midnights: list[int]) -> pd.Series:
    """US AQI of local days, between midnights [s]: the worst of six pollutants over their own averaging times."""
    of = {name: hours(frame, name) for name in ("pm2_5", "pm10", "no2", "so2", "o3", "co")}
    numbers = {}
    for zone in sorted(set(frame.zone)):
        for start, stop in itertools.pairwise(midnights):
            own = frame[(frame.zone == zone) & frame.quantity.isin(of) & frame.time.between(start, stop - 1)]
            if len(own):
                numbers[zone, start] = _worst(_day(of, zone, start, stop))
    return pd.Series(numbers)


def _day(of: dict[str, pd.Series], zone: str, start: int, stop: int) -> Iterator[float]:
    times = range(start, stop, HOUR)
    least = DAY_SHARE * len(times)

    def known(values: list[float]) -> list[float]:
        return [v for v in values if not math.isnan(v)]

    def day(name: str) -> list[float]:
        return known([of[name].get((zone, t), math.nan) for t in times])

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if len(values) >= least else math.nan

    def top(values: list[float], enough: float) -> float:
        return max(values) if values and len(values) >= enough else math.nan

    def eights(name: str, first_hour: int) -> list[float]:
        means = []
        for t in list(times)[first_hour:]:
            eight = known([of[name].get((zone, t + k * HOUR), math.nan) for k in range(8)])
            means.append(sum(eight) / len(eight) if len(eight) >= 6 else math.nan)
        return known(means)

    yield us_index("pm2_5", mean(day("pm2_5")))
    yield us_index("pm10", mean(day("pm10")))
    yield us_index("no2", top(day("no2"), least) / ppb("no2"))
    yield _so2(top(day("so2"), least) / ppb("so2"), mean(day("so2")) / ppb("so2"))
    yield us_index("co", top(eights("co", 0), least) / ppb("co"))
    yield us_index("o3_8h", top(eights("o3", 7), 13) / ppb("o3") / 1000)
    yield us_index("o3_1h", top(day("o3"), least) / ppb("o3") / 1000)


def _so2(hour: float, day: float) -> float:
    if math.isnan(hour) or math.floor(round(hour, 6)) < 305:
        return us_index("so2_1h", hour)
    index = us_index("so2_24h", day)
    return 200 if math.isnan(index) else index


def ppb(gas: str) -> float:
    """ug/m3 of one ppb (mg/m3 of one ppm) at 25 degC and 1013.25 hPa."""
    return MOLAR_MASS[gas] * 101_325 / (8.314462618 * 298.15) / 1000


def _worst(values: object) -> float:
    known = [v for v in values if not math.isnan(v)]  # type: ignore[attr-defined]
    return max(known) if known else math.nan


def energy(frame: pd.DataFrame, edges: list[int]) -> pd.Series:
    """Energy [kWh] of feeders between edges [s]; NaN where less than 90 % of the meters' time was measured."""
    numbers = {}
    for (zone, start), (kwh, measured, owed) in _metered(frame, edges).items():
        numbers[zone, start] = kwh if owed and measured >= 0.9 * owed else math.nan
    return pd.Series(numbers)


def peak_demand(frame: pd.DataFrame, midnights: list[int]) -> pd.Series:
    """Largest 15-minute block of local days [kW], of 60 minutes where meters are read by the hour."""
    width = 900 if frame.interval.max() <= 900 else HOUR
    days = _metered(frame, midnights)
    numbers = {}
    for zone, start in days:
        stop = midnights[midnights.index(start) + 1]
        blocks = _metered(frame[frame.zone == zone], list(range(start, stop + 1, width)), every=True).values()
        good, owed = (sum(block[k] for block in blocks) for k in (1, 2))
        whole = [kwh * HOUR / width for kwh, measured, due in blocks if due and measured >= 0.9 * due]
        numbers[zone, start] = max(whole) if whole and good >= 0.9 * owed else math.nan
    return pd.Series(numbers)


def _metered(
    frame: pd.DataFrame, edges: list[int], *, every: bool = False
) -> dict[tuple[str, int], tuple[float, int, int]]:
    """Return (kWh, declared intervals measured, owed) of feeders between edges that hold a reading (or of every one)."""
    found = {}
    for zone, of_zone in frame[frame.quantity.isin(["energy", "energy_import"])].groupby("zone"):
        pieces = {device: list(_pieces(rows)) for device, rows in usable(of_zone).groupby("device")}
        intervals = {device: int(rows.interval.iloc[0]) for device, rows in of_zone.groupby("device")}
        for start, stop in itertools.pairwise(edges):
            here = of_zone[of_zone.time.between(start, stop - 1)]
            if here.empty and not every:
                continue
            kwh, measured, owed = 0.0, 0, 0
            for device, interval in intervals.items():
                gave, covered = _share(pieces.get(device, []), interval, start, stop)
                kwh, owed = kwh + gave, owed + (stop - start) // interval
                measured += min(covered // interval, (stop - start) // interval)
            found[zone, start] = (kwh, measured, owed)
    return found


def _pieces(rows: pd.DataFrame) -> Iterator[tuple[int, int, float]]:
    """Yield (since, until, kWh): what interval readings say, and the differences of a register that does not fall."""
    spans = rows[rows.quantity == "energy"]
    yield from zip(spans.time, spans.time + spans.span, spans.value, strict=True)
    register = rows[rows.quantity == "energy_import"].sort_values("time")
    for (t0, r0), (t1, r1) in zip(
        register[["time", "value"]].to_numpy()[:-1], register[["time", "value"]].to_numpy()[1:], strict=True
    ):
        if r1 >= r0:
            yield int(t0), int(t1), r1 - r0


def _share(pieces: list[tuple[int, int, float]], interval: int, start: int, stop: int) -> tuple[float, int]:
    """Return what pieces give between two edges, cut in proportion where they are at most two intervals long, and their time."""
    kwh, covered = 0.0, 0
    for since, until, energy_kwh in pieces:
        overlap = min(until, stop) - max(since, start)
        if overlap > 0 and (overlap == until - since or until - since <= 2 * interval):
            kwh, covered = kwh + energy_kwh * overlap / (until - since), covered + overlap
    return kwh, covered


def episodes(
    values: pd.Series, width: int, *, above: float, clear: float, lasting: int, silent: int
) -> list[tuple[str, int, int | None]]:
    """Return (zone, start, end) of every time that a number stayed above a threshold; sorted."""
    found: list[tuple[str, int, int | None]] = []
    for zone, of_zone in values.dropna().groupby(level=0):
        begun = last = None
        fired = False
        for (_, start), value in of_zone.sort_index().items():
            if begun is not None and start - last >= silent:
                found += [(zone, begun, last)] if fired else []
                begun, fired = None, False
            if begun is not None and (value <= clear or (not fired and value <= above)):
                found += [(zone, begun, start)] if fired else []
                begun, fired = None, False
            elif begun is None and value > above:
                begun = start
            last = start + width
            fired = begun is not None and (fired or last - begun >= lasting)
        found += [(zone, begun, None)] if fired else []
    return sorted(found, key=str)
