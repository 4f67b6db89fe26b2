"""Talking to an InfluxDB 2 server: its address and token, requests tried a bounded number of times, its errors in our words.

The client of influxdb-client is used for its API and connections; it neither retries nor batches nor compresses here.
"""

from __future__ import annotations

import gzip
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from influxdb_client import BucketRetentionRules, Dialect, InfluxDBClient
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from urllib3.exceptions import HTTPError

from devices.errors import ConfigError, QalaError, UnavailableError, UnsupportedError
from qala.store.base import Span
from qala.store.settings import StoreSettings

T = TypeVar("T")

PORT = 8086
EARLIEST_US, LATEST_US = -(2**63) // 1000 + 1, (2**63) // 1000 - 1
"""The times that InfluxDB can hold [us]: int64 nanoseconds."""

_PAUSES_S = (0.1, 0.3, 0.8)  # between tries
_TIMEOUT_MS = (3_000, 60_000)  # to connect, to wait for data
_LOOK_MS = (1_000, 2_000)
_NEAR = frozenset({"localhost", "127.0.0.1", "::1"})
_FRESH_S = 1.0  # a server that answered so recently is there
_ANSWER_MAX = 512 * 2**20  # bytes
_PIECE = 2**20
_BUSY = frozenset({429, 500, 502, 503, 504})
_DIALECT = Dialect(header=True, delimiter=",", annotations=[])
_SHARDS_S = ((180 * 86_400, 7 * 86_400), (2 * 86_400, 86_400), (0, 3_600))
"""How long a shard is [s] in buckets that keep readings for at least so long: InfluxDB's own choice for new buckets."""
_FORM = "write influxdb://HOST:PORT/ORG/BUCKET"


class Address(msgspec.Struct, frozen=True):
    """Where a store is: server, organisation and the bucket of its readings."""

    url: str
    org: str
    bucket: str


class RefusedError(QalaError):
    """The server took some lines of a write and not others, or none; nothing of it may count as stored."""

    code = "refused"


def parse_address(url: str) -> Address:
    """Read `influxdb://HOST[:PORT]/ORG/BUCKET[?tls=true]`.

    Raises ConfigError where it is anything else; what may be a secret is not repeated.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or PORT
    except ValueError:
        raise ConfigError("the store's URL cannot be read", hint=_FORM) from None
    query = parse_qs(parts.query, keep_blank_values=True)
    if "@" in parts.netloc or query.keys() - {"tls"}:
        raise ConfigError(
            "the store's URL holds a password, a token or something else that does not belong there",
            hint=f"{_FORM}, and set the token with QALA_STORE__TOKEN, store.token_file or INFLUX_TOKEN",
        )
    path = [unquote(word) for word in parts.path.strip("/").split("/")]
    tls = query.get("tls", ["false"])[-1]
    if not parts.hostname or len(path) != 2 or not all(path) or tls not in {"true", "false"}:
        raise ConfigError("the store's URL names no server, organisation and bucket", hint=_FORM)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{'https' if tls == 'true' else 'http'}://{host}:{port}", *path)


def find_token(settings: StoreSettings) -> str:
    """Return the token: of the settings, of the file that they name, or of INFLUX_TOKEN. Raises ConfigError where there is none."""
    given = settings.token.get_secret_value()
    if not given and settings.token_file is not None:
        try:
            given = settings.token_file.expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the token cannot be read from {settings.token_file}: {type(error).__name__}",
                hint="store.token_file names a file with nothing but the token",
            ) from None
    given = given or os.environ.get("INFLUX_TOKEN", "")
    if not given:
        raise ConfigError(
            "the InfluxDB store has no token", hint="set QALA_STORE__TOKEN, store.token_file or INFLUX_TOKEN"
        )
    if not given.isascii() or not given.isprintable():
        raise ConfigError("the InfluxDB token has characters that no token has", hint="copy it again, without quotes")
    return given


class Server:
    """One server, as one token sees it. For several threads at once."""

    def __init__(self, address: Address, token: str) -> None:
        self.address = address
        self.opening = True  # an error of the configuration is told as such until the store is open
        self._client = InfluxDBClient(
            address.url, token=token, org=address.org, timeout=_TIMEOUT_MS, connection_pool_maxsize=16
        )
        self._writes = WriteService(self._client.api_client)
        self._queries = self._client.query_api()
        self._deletes = self._client.delete_api()
        self._buckets = self._client.buckets_api()
        self._heard_s = -_FRESH_S
        self._is_near = urlsplit(address.url).hostname in _NEAR
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"Server({self.address.url!r})"

    def close(self) -> None:
        """Take no more requests; those that wait between tries end."""
        self._closed.set()
        self._client.api_client.rest_client.pool_manager.clear()  # the client's own `close` breaks what still runs

    # ---- requests

    def write(self, bucket: str, body: bytes) -> None:
        """Write lines with times in microseconds; on return they are durable.

        Raises RefusedError where a line was not taken, UnavailableError where the server could not be asked.
        """
        # Packing costs both ends more than loopback does. The client's own takes level 9: 16 times slower, a quarter less.
        packed, encoding = (body, "identity") if self._is_near else (gzip.compress(body, 1), "gzip")
        self._ask(
            lambda: self._writes.post_write(
                org=self.address.org, bucket=bucket, body=packed, precision="us", content_encoding=encoding
            )
        )

    def query(self, flux: str) -> bytes:
        """Return what a Flux query answers, as CSV without annotations. Raises UnsupportedError where it is too much."""
        return self._ask(lambda: self._read(flux))

    def _read(self, flux: str) -> bytes:
        response: Any = self._queries.query_raw(flux, dialect=_DIALECT)
        try:
            pieces: list[bytes] = []
            size = 0
            for piece in response.stream(_PIECE, decode_content=True):
                size += len(piece)
                if size > _ANSWER_MAX:
                    raise UnsupportedError(
                        f"InfluxDB answered more than {_ANSWER_MAX >> 20} MiB at once",
                        hint="ask for fewer series or a shorter time",
                    )
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            response.release_conn()

    def delete(self, bucket: str, first: str, last: str, predicate: str) -> None:
        """Delete the points from one time to another, both included; an empty predicate means all of them."""
        self._ask(lambda: self._deletes.delete(first, last, predicate, bucket))

    def look(self) -> None:
        """Raise UnavailableError where the server does not answer."""
        if self._closed.is_set():
            raise UnavailableError("the store is closed", hint="open it again")
        if time.monotonic() - self._heard_s < _FRESH_S:
            return
        try:
            self._client.api_client.call_api("/ping", "GET", {}, [], {}, _request_timeout=_LOOK_MS, auth_settings=[])
        except (HTTPError, ApiException, OSError) as error:
            raise self._unreachable(error) from None
        self._heard_s = time.monotonic()

    # ---- buckets

    def find_bucket(self, name: str) -> Any | None:
        """Return a bucket as the server describes it, None where there is none or the token does not see it."""
        return self._ask(lambda: self._listed(name))

    def _listed(self, name: str) -> Any | None:
        try:
            found = self._buckets.find_buckets(name=name, org=self.address.org, limit=1)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return next(iter(found.buckets or ()), None)

    def make_bucket(self, name: str, org: str) -> None:
        """Make a bucket that forgets nothing in an organisation, which is named by its id where that is known."""
        self._ask(lambda: self._buckets.create_bucket(bucket_name=name, org=org))

    def keep(self, bucket: Any, keep_s: int) -> None:
        """Let a bucket forget what is older than so many seconds."""
        shard_s = next(shard for least, shard in _SHARDS_S if keep_s >= least)
        bucket.retention_rules = [
            BucketRetentionRules(type="expire", every_seconds=keep_s, shard_group_duration_seconds=shard_s)
        ]
        self._ask(lambda: self._buckets.update_bucket(bucket))

    # ---- trying, and what comes of it

    def _ask(self, request: Callable[[], T]) -> T:
        for pause_s in (*_PAUSES_S, None):
            if self._closed.is_set():
                break
            try:
                answer = request()
            except ApiException as error:
                if pause_s is None or error.status not in _BUSY:
                    raise self._told(error) from None
            except (HTTPError, OSError) as error:
                if pause_s is None:
                    raise self._unreachable(error) from None
            else:
                self._heard_s = time.monotonic()
                return answer
            self._heard_s = -_FRESH_S
            self._closed.wait(pause_s)
        raise UnavailableError("the store is closed", hint="open it again")

    def _unreachable(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"InfluxDB at {self.address.url} does not answer: {type(error).__name__}",
            hint="see whether it runs; what was not stored waits in the journal",
        )

    def _told(self, error: ApiException) -> QalaError:
        said = _message(error)
        where = f"InfluxDB at {self.address.url}"
        if error.status in {401, 403}:
            return self._misset(
                f"{where} does not let this token do that: {said}",
                "give a token that may read and write the bucket, and the one beside it whose name ends with _qala",
            )
        if error.status == 404:
            return self._misset(f"{where} has no such bucket or organisation: {said}", "make it, or correct store.url")
        if error.status in {400, 413, 422}:
            return RefusedError(f"{where} refused: {said}", hint="nothing that it refused was counted as stored")
        return UnavailableError(f"{where} failed ({error.status}): {said}", hint="see its log; it is tried again")

    def _misset(self, message: str, hint: str) -> QalaError:
        return ConfigError(message, hint=hint) if self.opening else UnavailableError(message, hint=hint)


def _message(error: ApiException) -> str:
    try:
        said = msgspec.json.decode(error.body)["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        said = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
    return str(said or error.reason)[:1000]


def bounds(span: Span) -> Span:
    """Cut a span to the times that InfluxDB can hold."""
    return Span(
        min(max(span.start_us, EARLIEST_US), LATEST_US),
        min(max(span.stop_us, EARLIEST_US), LATEST_US),
    )
