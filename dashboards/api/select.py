"""Which parameters and which series a request speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Query, Request

from dashboards.problem import ProblemError
from devices.errors import NotFoundError
from devices.quantity import QUANTITIES
from devices.reading import SeriesInfo
from qala.store.base import Store

__all__ = ["SeriesQuery", "aggregation", "chosen_series", "known_parameters", "select_series"]

SeriesQuery = Annotated[
    str | None,
    Query(description="ids of series, separated by commas", pattern=r"^\d{1,9}(,\d{1,9})*$", max_length=10_000),
]


def select_series(store: Store, *, device: str | None = None, quantity: str | None = None) -> dict[int, SeriesInfo]:
    """Return the series of a device and a quantity, by id; None means any."""
    return {
        id_: info
        for id_, info in store.catalog().items()
        if device in {None, info.device} and quantity in {None, info.quantity}
    }


def chosen_series(
    store: Store, series: str | None, device: str | None, quantity: str | None
) -> Mapping[int, SeriesInfo]:
    """Return the series that a request names by id, or by device and quantity.

    Raises ProblemError (422) where it names none, NotFoundError where an id or a device does not exist.
    """
    if series is None and device is None and quantity is None:
        hint = "name series=, device= or quantity=; /api/v1/series lists what there is"
        raise ProblemError(422, "no_series", "the request names no series", hint=hint)
    chosen = select_series(store, device=device, quantity=quantity)
    if series is None:
        return chosen
    wanted = [int(text) for text in series.split(",")]
    catalog = store.catalog()
    for id_ in wanted:
        if id_ not in catalog:
            raise NotFoundError(f"there is no series {id_}", hint="list the series at /api/v1/series")
    return {id_: chosen[id_] for id_ in wanted if id_ in chosen}


def aggregation(info: SeriesInfo) -> str | None:
    """Return how a series' quantity may be aggregated, None where it is not in the catalogue."""
    quantity = QUANTITIES.get(info.quantity)
    return quantity.aggregation.value if quantity else None


async def known_parameters(request: Request) -> None:
    """Refuse parameters that the address does not take: a misspelt filter would show too much in silence.

    Raises ProblemError (422) and names those that it takes.
    """
    if not request.query_params:
        return
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            hint = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
            raise ProblemError(422, "unknown_parameter", f"no parameter is called {name!r} here", hint=hint)
