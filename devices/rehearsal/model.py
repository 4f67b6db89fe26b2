"""How the rehearsal city lives: its weather, traffic, air and electricity over one UTC day, minute by minute.

Coupled in the obvious ways: rush hours by weekday load the roads; wind and the inversion of cold calm nights decide how
far smoke and exhaust are diluted; traffic makes NO2, heating makes PM; cold and dark evenings draw power. The figures are
plausible for the foot of the Trans-Ili Alatau, and invented.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
import numpy as np

from devices.reading import Float64Array, Int64Array
from devices.rehearsal.noise import normal, smooth, uniform

__all__ = [
    "DAY_S",
    "MINUTES",
    "Meters",
    "Places",
    "Roads",
    "air",
    "day_energy",
    "demand",
    "grid",
    "minutes_of",
    "sky",
    "streets",
    "weather",
]

DAY_S = 86_400
MINUTES = 1440
UTC_OFFSET_S = 5 * 3600
"""The city's clocks are five hours ahead of UTC."""


class Sky(msgspec.Struct, frozen=True):
    """The weather over the city: float64[minutes] each."""

    temperature: Float64Array  # [degC]
    relative_humidity: Float64Array  # [%]
    pressure: Float64Array  # [hPa]
    wind_speed: Float64Array  # [m/s]
    wind_direction: Float64Array  # [deg]
    sun: Float64Array  # 0 to 1
    stagnation: Float64Array  # how concentrated what is emitted stays: 0.5 in wind, 3 in a calm inversion
    heating: Float64Array  # 0 to 1


def minutes_of(day: int) -> Int64Array:
    """Return the times [s since 1970, UTC] of a day's minutes."""
    return day * DAY_S + 60 * np.arange(MINUTES, dtype=np.int64)


def _local(time_s: Int64Array) -> tuple[Float64Array, Int64Array]:
    """Return the local hour (0 to 24) and weekday (Monday 0)."""
    local = time_s + UTC_OFFSET_S
    return (local % DAY_S) / 3600, (local // DAY_S + 3) % 7


def _bump(hour: Float64Array, at: float, width: float) -> Float64Array:
    """A bell over the hours of a day, around midnight too."""
    away = (hour - at + 12) % 24 - 12
    bell: Float64Array = np.exp(-((away / width) ** 2))
    return bell


def _mean_temperature(seed: int, time_s: Int64Array) -> Float64Array:
    """Season and passing fronts, without the course of the day [degC]."""
    season = -np.cos(2 * np.pi * (time_s / DAY_S / 365.2425 - 0.055))
    return 9.5 + 15.0 * season + 3.5 * smooth(seed, 1, 0, time_s, 2 * DAY_S)


@lru_cache(maxsize=8)
def sky(seed: int, day: int) -> Sky:
    """Make a day's weather."""
    time_s = minutes_of(day)
    hour, _ = _local(time_s)
    sun = np.clip(np.cos((hour - 13) / 24 * 2 * np.pi) + 0.15, 0, None) / 1.15
    wind = 0.4 + 1.6 * np.abs(smooth(seed, 2, 0, time_s, 9 * 3600) + 0.5) + 1.2 * sun
    gust = np.clip(wind * (1 + 0.15 * smooth(seed, 3, 0, time_s, 600)), 0.1, None)
    temperature = _mean_temperature(seed, time_s) + 4.0 * np.cos((hour - 15) / 24 * 2 * np.pi) - 0.2 * wind
    heating = np.clip((16 - temperature) / 30, 0, 1)
    inversion = (0.35 + heating) * np.clip(1 - 1.3 * sun, 0, 1)
    valley = np.where(sun > 0.25, 330.0, 150.0)  # the breeze of the mountains turns with the sun
    return Sky(
        temperature=temperature,
        relative_humidity=np.clip(68 - 1.1 * (temperature - 5) + 8 * smooth(seed, 4, 0, time_s, 8 * 3600), 12, 99),
        pressure=944 + 5 * smooth(seed, 5, 0, time_s, 30 * 3600),
        wind_speed=gust,
        wind_direction=(valley + 35 * smooth(seed, 6, 0, time_s, 2 * 3600)) % 360,
        sun=sun,
        stagnation=np.clip((0.7 + 1.9 * inversion) / (0.55 + 0.45 * wind), 0.3, 3.2),
        heating=heating,
    )


def demand(time_s: Int64Array) -> Float64Array:
    """How much of its peak a road is asked for: two rush hours on working days, one broad noon on free ones."""
    hour, weekday = _local(time_s)
    day = 0.40 * _bump(hour, 13.5, 5.0) + 0.06
    work = day + 0.62 * _bump(hour, 8.3, 1.2) + 0.73 * _bump(hour, 18.4, 1.5)
    free = 0.05 + 0.52 * _bump(hour, 15.0, 4.2) + 0.10 * _bump(hour, 20.5, 2.0)
    return np.where(weekday >= 5, free, work)


class Roads(msgspec.Struct, frozen=True):
    """Roads as the model sees them, one entry a road: `strain` is the demand of rush hour over the capacity."""

    free_flow_kmh: Float64Array
    lanes: Float64Array
    strain: Float64Array


def _load(seed: int, day: int, roads: Roads) -> Float64Array:
    """Demand over capacity of each road: float64[roads, minutes]. Works close lanes of one road by day and one by night."""
    time_s = minutes_of(day)
    hour, _ = _local(time_s)
    count = len(roads.strain)
    load = roads.strain[:, None] * demand(time_s) * (1 + 0.06 * smooth(seed, 11, np.arange(count), time_s, 1800))
    shift = (time_s + UTC_OFFSET_S - DAY_S // 2) // DAY_S  # noon to noon, so that a night has one road
    for stream, when, closed in ((12, _bump(hour, 13.5, 5.0), 0.65), (13, _bump(hour, 1.0, 4.2), 1.0)):
        road = (uniform(seed, stream, shift + (stream == 12)) * count).astype(np.int64)
        load[road, np.arange(MINUTES)] += closed * when
    return load


def streets(seed: int, day: int, roads: Roads, road: Int64Array) -> dict[str, Float64Array]:
    """Make a day of the detectors on these roads (indices, one a detector): float64[devices, minutes] by quantity.

    The speed is NaN where nobody passed.
    """
    time_s = minutes_of(day)
    device = np.arange(len(road))[:, None]
    load = (_load(seed, day, roads)[road]) * (1 + 0.05 * normal(seed, 15, device))
    # A congested road passes fewer vehicles than it could: beyond capacity the flow falls again.
    flow = 1700 * roads.lanes[road, None] * np.minimum(load, 1.25 - 0.25 * np.clip(load, 0, 2.5)).clip(0.0)
    count = np.floor(flow / 60 + np.sqrt(flow / 60) * 0.7 * normal(seed, 16, device, time_s // 60) + 0.5).clip(0)
    mean = roads.free_flow_kmh[road, None] * (1 + 0.02 * normal(seed, 17, device)) / (1 + 0.62 * load**3)
    seen = np.sqrt(np.maximum(count, 1))
    speed = np.clip(mean * (1 + 0.10 * normal(seed, 18, device, time_s // 60) / seen), 4.0, 139.0)
    occupancy = 100 * (count * 60) * 0.0065 / (speed * roads.lanes[road, None])
    return {
        "vehicle_count": count,
        "speed": np.where(count > 0, speed.round(1), np.nan),
        "occupancy": np.clip(occupancy, 0, 79).round(1),
    }


class Places(msgspec.Struct, frozen=True):
    """Where air stations stand, one entry a station: how much smoke, exhaust and industry its surroundings have (about 1)."""

    district: Int64Array  # its number, one of `districts`
    districts: int
    smoke: Float64Array
    exhaust: Float64Array
    industry: Float64Array


def _fire(seed: int, time_s: Int64Array, places: Places) -> Float64Array:
    """PM2.5 from what burns in one district for a few hours of most days: float64[devices, minutes] [ug/m3]."""
    hour, _ = _local(time_s)
    local_day = (time_s + UTC_OFFSET_S) // DAY_S
    where = (uniform(seed, 32, local_day) * places.districts).astype(np.int64)
    when, strength = 4 + 16 * uniform(seed, 33, local_day), 100 * uniform(seed, 34, local_day) - 20
    plume = strength.clip(0.0) * np.exp(-(((hour - when) / 1.3) ** 2))
    return np.where(places.district[:, None] == where, plume, 0.0)


def air(seed: int, day: int, places: Places) -> dict[str, Float64Array]:
    """Make a day of the air stations: float64[devices, minutes] by quantity."""
    time_s, now = minutes_of(day), sky(seed, day)
    device = np.arange(len(places.smoke))
    local = 1 + 0.10 * smooth(seed, 21, device, time_s, 2700)
    smoke = places.smoke[:, None] * (0.25 + 1.5 * now.heating) * now.stagnation
    exhaust = places.exhaust[:, None] * demand(time_s) * now.stagnation**0.7
    fire = _fire(seed, time_s, places)
    dust = 3.0 * np.clip(now.wind_speed - 3, 0, None)

    def measured(stream: int, mean: Float64Array, share: float) -> Float64Array:
        shaken: Float64Array = mean * local * (1 + share * normal(seed, stream, device[:, None], time_s // 60))
        return shaken.clip(0.0)

    pm2_5 = measured(22, 4 + 13.0 * smoke + 5.0 * exhaust + fire, 0.03)
    no2 = measured(24, 6 + 40 * exhaust + 6 * places.industry[:, None], 0.03)
    ozone = np.clip(28 + 75 * now.sun * (1 - now.heating) - 0.25 * no2, 2, None)
    return {
        "pm1": (0.68 * pm2_5).round(1),
        "pm2_5": pm2_5.round(1),
        "pm10": (pm2_5 * 1.35 + measured(23, 6 + dust + 4 * exhaust, 0.05)).round(1),
        "no2": no2.round(1),
        "so2": measured(25, 4 + 7 * places.industry[:, None] * now.stagnation + 2 * smoke, 0.04).round(1),
        "o3": measured(26, ozone, 0.03).round(1),
        "co": measured(27, 0.2 + 0.45 * exhaust + 0.10 * smoke, 0.03).round(3),
        "temperature": (
            now.temperature + 0.6 * normal(seed, 28, device[:, None]) + _jitter(seed, 29, device, 0.06)
        ).round(2),
        "relative_humidity": (now.relative_humidity + _jitter(seed, 30, device, 0.4)).clip(8, 100).round(1),
        "pressure": (now.pressure + _jitter(seed, 31, device, 0.06)).round(2),
    }


def _jitter(seed: int, stream: int, device: Int64Array, deviation: float) -> Float64Array:
    """What a sensor adds of its own: float64[devices, minutes], drawn anew every minute of the day."""
    return deviation * normal(seed, stream, device[:, None], np.arange(MINUTES))


def weather(seed: int, day: int, count: int) -> dict[str, Float64Array]:
    """Make a day of the weather stations: float64[devices, minutes] by quantity."""
    now, device = sky(seed, day), np.arange(count)
    time_s = minutes_of(day)
    own = smooth(seed, 41, device, time_s, 1200)
    return {
        "temperature": (now.temperature + 0.4 * own + _jitter(seed, 42, device, 0.06)).round(2),
        "relative_humidity": (now.relative_humidity + _jitter(seed, 43, device, 0.5)).clip(8, 100).round(1),
        "pressure": (now.pressure + _jitter(seed, 44, device, 0.06)).round(2),
        "wind_speed": (now.wind_speed * (1 + 0.15 * own) + _jitter(seed, 45, device, 0.15)).clip(0.0).round(1),
        "wind_direction": ((now.wind_direction + 12 * own) % 360).round(0) % 360,
    }


class Meters(msgspec.Struct, frozen=True):
    """Meters as the model sees them, one entry a meter: `use` is 0 for homes, 1 for offices, 2 for industry."""

    use: Int64Array
    peak_w: Float64Array


def _use(time_s: Int64Array) -> Float64Array:
    """Share of its peak that each use draws: float64[3, times]."""
    hour, weekday = _local(time_s)
    busy = np.where(weekday >= 5, 0.35, 1.0)
    homes = 0.36 + 0.22 * _bump(hour, 7.6, 1.4) + 0.14 * _bump(hour, 13, 4) + 0.60 * _bump(hour, 20.0, 2.6)
    offices = 0.22 + 0.76 * busy * _bump(hour, 13.5, 5.2)
    industry = 0.62 + (0.10 + 0.26 * busy) * _bump(hour, 12.5, 6.5)
    return np.stack((homes, offices, industry))


def day_energy(seed: int, days: Int64Array, meters: Meters) -> Float64Array:
    """Return what each meter counts on each day [kWh]: float64[devices, days]. Cold days draw more."""
    noon_s = days * DAY_S + DAY_S // 2
    cold = np.clip((16 - _mean_temperature(seed, noon_s)) / 30, 0, 1)
    hours = days[:, None] * DAY_S + 3600 * np.arange(24)
    mean_use = _use(hours).mean(axis=2)  # float64[3, days]
    device = np.arange(len(meters.use))[:, None]
    wobble = 1 + 0.03 * normal(seed, 51, device, days)
    energy: Float64Array = 24 * meters.peak_w[:, None] / 1000 * mean_use[meters.use] * (0.74 + 0.5 * cold) * wobble
    return energy


def grid(seed: int, day: int, meters: Meters) -> dict[str, Float64Array]:
    """Make a day of the meters: float64[devices, minutes] by quantity.

    `active_power` is the mean over the minute, `energy_import` [kWh] counts from the day's start and is that at the
    minute's start, so that the one is the difference of the other.
    """
    time_s = minutes_of(day)
    device = np.arange(len(meters.use))
    shape = _use(time_s)[meters.use] * (1 + 0.05 * smooth(seed, 52, device, time_s, 1200))
    shape *= 1 + 0.02 * normal(seed, 53, device[:, None], time_s // 60)
    total = day_energy(seed, np.array([day]), meters)
    energy = total * shape / shape.sum(axis=1, keepdims=True)  # [kWh] a minute
    power = energy * 60_000
    load = power / np.maximum(meters.peak_w[:, None], 1)
    voltage = 232 - 5 * load + _jitter(seed, 54, device, 0.5)
    return {
        "active_power": power.round(0),
        "energy_import": np.cumsum(energy, axis=1) - energy,
        "voltage": voltage.round(2),
        "current": (power / (3 * 0.96 * voltage)).round(3),
    }
