"""The NowCast of particles: a mean of the last twelve hours that follows fast changes. Pure.

Source: US EPA, "Technical Assistance Document for the Reporting of Daily Air Quality", and AirNow's description of the PM NowCast.
"""

from __future__ import annotations

import numpy as np

from devices.reading import Float64Array

__all__ = ["HOURS", "pm_nowcast"]

HOURS = 12


def pm_nowcast(hourly: Float64Array) -> Float64Array:
    """Return the NowCast of hourly means float64[..., 12], oldest first; NaN for an hour without one, or where there is no answer.

    At least two of the last three hours must be there. The weight of an hour is w to the power of its age, w = min/max of
    the hours, at least 0.5; sums are over the hours that are there. Negative means count as 0.

    >>> hours = [34.9, 43.0, 50.0, 64.9, 69.2, 66.2, 53.7, 48.6, 49.2, 35.0, np.nan, 21.0]
    >>> float(pm_nowcast(np.array(hours)).round(6))
    28.409801
    """
    value = np.maximum(hourly, 0.0)
    there = ~np.isnan(value)
    low = np.where(there, value, np.inf).min(axis=-1)
    high = np.where(there, value, -np.inf).max(axis=-1)
    ratio = np.divide(low, high, out=np.ones(low.shape), where=(high > 0) & np.isfinite(high))
    ratio = np.maximum(ratio, 0.5)
    weight, above, below = np.ones(low.shape), np.zeros(low.shape), np.zeros(low.shape)
    for age in range(hourly.shape[-1]):  # one hour after the other, so that the order of addition is fixed
        of_age, present = value[..., -1 - age], there[..., -1 - age]
        above = above + np.where(present, weight * of_age, 0.0)
        below = below + np.where(present, weight, 0.0)
        weight = weight * ratio
    answered = there[..., -3:].sum(axis=-1) >= 2
    result: Float64Array = np.divide(above, below, out=np.full(low.shape, np.nan), where=answered)
    return result
