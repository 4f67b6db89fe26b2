"""Readings and values as pandas frames, over the API: for analysts with a notebook.

`Frames("http://127.0.0.1:8080").values("pm2_5_mean", window="1h", start="-7d")`
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa

from devices.errors import UnavailableError

__all__ = ["Frames"]

ARROW = "application/vnd.apache.arrow.stream"
TIMEOUT_S = 60.0


class Frames:
    """Asks one Qala for tables. Every row keeps its unit and its flag or coverage; times are UTC.

    `token` is what the server asks for beyond its own machine; `transport` is for an application in the same process.
    Raises UnavailableError where the server does not answer or says no, with its words.
    """

    def __init__(
        self, url: str = "http://127.0.0.1:8080", *, token: str = "", transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"Accept": ARROW} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S, headers=headers, transport=transport)

    def readings(
        self, *, device: str | None = None, quantity: str | None = None, start: str = "-24h", stop: str = "now"
    ) -> pd.DataFrame:
        """Return readings, one row each, by series and time; at least a device or a quantity has to be named."""
        return self._frame("/api/v1/readings", device=device, quantity=quantity, start=start, stop=stop)

    def values(
        self,
        indicator: str,
        *,
        window: str | None = None,
        zone: str | None = None,
        start: str = "-24h",
        stop: str = "now",
        as_of: str | None = None,
    ) -> pd.DataFrame:
        """Return values of an indicator, one row each, the newest revision (or the newest known at `as_of`)."""
        path = f"/api/v1/indicators/{indicator}/values"
        return self._frame(path, window=window, zone=zone, start=start, stop=stop, as_of=as_of)

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()

    def _frame(self, path: str, **query: str | None) -> pd.DataFrame:
        asked = {name: value for name, value in query.items() if value is not None}
        frame: pd.DataFrame = pa.concat_tables(self._tables(path, asked)).to_pandas()
        return frame

    def _tables(self, path: str, query: dict[str, str]) -> Iterator[pa.Table]:
        """Yield the pages of a table, following their links."""
        address: Any = self._client.build_request("GET", path, params=query).url
        while address is not None:
            answer = self._get(address)
            yield pa.ipc.open_stream(answer.content).read_all()
            following = answer.links.get("next", {}).get("url")
            address = answer.url.join(following) if following else None

    def _get(self, address: httpx.URL) -> httpx.Response:
        try:
            answer = self._client.get(address)
        except httpx.TransportError as error:
            raise UnavailableError(f"{address.host} does not answer: {error}", hint="is `qala run` up?") from None
        if answer.is_error:
            problem = answer.json()
            raise UnavailableError(problem["detail"], hint=problem["hint"])
        return answer
