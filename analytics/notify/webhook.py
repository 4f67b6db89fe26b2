"""Notices to an HTTP endpoint: a POST of JSON with an `Idempotency-Key`, so that a receiver can drop a repeat."""

from __future__ import annotations

import httpx

from analytics.notify import Notice

__all__ = ["WebhookChannel"]


class WebhookChannel:
    """POST each notice to one URL, waiting `timeout_s` at most; anything but a 2xx is a failure."""

    name = "webhook"

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._url = url
        self._client = httpx.Client(timeout=timeout_s)

    def send(self, notice: Notice) -> None:
        """Deliver one notice. Raises httpx.HTTPError where the endpoint does not take it."""
        answer = self._client.post(self._url, json=dict(notice), headers={"Idempotency-Key": notice["key"]})
        answer.raise_for_status()

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()
