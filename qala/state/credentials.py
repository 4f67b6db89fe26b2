"""Credentials of devices and gateways: tokens, and since when certificates of a device are taken.

A token is `<id>.<secret>`, the secret 256 random bits in base64url. What is kept is its HMAC-SHA-256 under a key that
lies beside the database and never in it: who gets hold of a copy of the database can neither use nor check a token.
Every change gets the next number, so that who knows all up to one number asks for the later ones alone.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    LargeBinary,
    String,
    Table,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from devices.errors import ConfigError, ConflictError, NotFoundError
from qala.state.database import METADATA, alone

__all__ = [
    "VALID_MAX",
    "Credential",
    "CredentialKind",
    "Issue",
    "Issued",
    "changed_since",
    "count_credentials",
    "digest",
    "is_device_name",
    "issue",
    "issue_missing",
    "last_change",
    "list_credentials",
    "revoke",
    "rotate",
    "split",
]

VALID_MAX = 2
"""Tokens of one principal that are valid at once: the one in use, and the one that takes its place."""
FILTERS_MAX, FILTER_MAX, NOTE_MAX = 100, 256, 200
_OF_BROKERS = "broker:"
_LEVEL = r"[A-Za-z0-9_.:-]{1,64}"
_NAME = re.compile(rf"{_LEVEL}(/{_LEVEL})?")
_TOKEN = re.compile(r"([a-z2-7]{8})\.([A-Za-z0-9_-]{43})")


class CredentialKind(StrEnum):
    """What a row says: there is a token; or certificates of the device from before `created_us` are refused."""

    TOKEN = "token"  # noqa: S105 - its name
    CERTIFICATES = "certificates"


class Credential(msgspec.Struct, frozen=True):
    """A row as it is kept. Times in microseconds; those that are None are not set. `filters` are MQTT topic filters."""

    id: str
    principal: str
    kind: CredentialKind
    digest: bytes
    filters: list[str]
    created_us: int
    created_by: str
    expires_us: int | None
    revoked_us: int | None
    note: str
    change: int

    def state(self, now_us: int) -> str:
        """Say whether it is "valid", "expired" or "revoked"; a bar on certificates holds for ever."""
        if self.revoked_us is not None:
            return "revoked"
        return "valid" if self.expires_us is None or now_us < self.expires_us else "expired"


class Issue(msgspec.Struct, frozen=True):
    """What a new token is to be. A gateway needs filters; those of a device are added to its own topics."""

    principal: str
    filters: Sequence[str] = ()
    expires_us: int | None = None
    created_by: str = ""
    note: str = ""


class Issued(msgspec.Struct, frozen=True):
    """A new credential and its token, which is told this once."""

    credential: Credential
    token: str


_credential = Table(
    "credential",
    METADATA,
    Column("id", String(8), primary_key=True),
    Column("principal", String(129), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("filters", JSON, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("created_by", String, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("note", String, nullable=False),
    Column("change", BigInteger, nullable=False),
    Index("credential_principal", "principal", "created_us", "id"),
    Index("credential_change", "change"),
)
_IN_ORDER = (_credential.c.principal, _credential.c.created_us, _credential.c.id)


# ---- tokens


def digest(key: bytes, secret: str) -> bytes:
    """Return what is kept of a secret: uint8[32]."""
    return hmac.digest(key, secret.encode(), "sha256")


def split(token: str) -> tuple[str, str] | None:
    """Return the id and the secret of a token, or None where a text cannot be one.

    >>> split("abcd2345." + "x" * 43) == ("abcd2345", "x" * 43), split("abcd2345"), split("ABCD2345." + "x" * 43)
    (True, None, None)
    """
    found = _TOKEN.fullmatch(token)
    return (found[1], found[2]) if found else None


def is_device_name(principal: str) -> bool:
    """Tell whether a principal is a device, "<fleet>/<device>", and no gateway.

    >>> is_device_name("demo/air-1"), is_device_name("gateway-7"), is_device_name("a/b/c"), is_device_name("demo/#")
    (True, False, False, False)
    """
    return "/" in principal and _NAME.fullmatch(principal) is not None


def _new_id() -> str:
    return base64.b32encode(os.urandom(5)).decode().lower()


# ---- what changes them


def issue(engine: Engine, key: bytes, wanted: Issue, now_us: int) -> Issued:
    """Make a token.

    Raises ConfigError where a name or a filter cannot be, ConflictError where the principal has two valid tokens.
    """
    _check(wanted)
    with engine.begin() as connection:
        alone(connection)
        if len(_valid(connection, wanted.principal, now_us)) >= VALID_MAX:
            raise ConflictError(
                f"{wanted.principal!r} has {VALID_MAX} valid tokens",
                hint="revoke the one that is not in use with --id: qala devices credential list names them",
            )
        return _insert(connection, key, [wanted], now_us)[0]


def issue_missing(engine: Engine, key: bytes, wanted: Iterable[Issue], now_us: int) -> list[Issued]:
    """Make a token for each principal that has no valid one, all or none. Raises ConfigError as `issue` does."""
    by_principal = {each.principal: each for each in wanted}
    for each in by_principal.values():
        _check(each)
    with engine.begin() as connection:
        alone(connection)
        query = select(_credential.c.principal).where(*_is_valid_token(now_us)).distinct()
        for principal in connection.execute(query).scalars():
            by_principal.pop(principal, None)
        return _insert(connection, key, list(by_principal.values()), now_us)


def rotate(engine: Engine, key: bytes, wanted: Issue, now_us: int, *, overlap_us: int) -> Issued:
    """Make a token in place of the valid one, which expires after the overlap. Its filters stay where none are given.

    Raises NotFoundError where the principal has no valid token, ConflictError where it has two: which of them the device
    uses, only its operator knows.
    """
    with engine.begin() as connection:
        alone(connection)
        valid = _valid(connection, wanted.principal, now_us)
        if not valid:
            raise NotFoundError(
                f"{wanted.principal!r} has no valid token",
                hint="make one with: qala devices credential issue",
            )
        if len(valid) > 1:
            ids = " and ".join(one.id for one in valid)
            raise ConflictError(
                f"{wanted.principal!r} has two valid tokens, {ids}: a rotation is under way",
                hint="revoke the one that is not in use any more with --id, then rotate",
            )
        [old] = valid
        new = msgspec.structs.replace(wanted, filters=wanted.filters or old.filters)
        _check(new)
        until_us = min(now_us + overlap_us, now_us + overlap_us if old.expires_us is None else old.expires_us)
        _change(connection, [old.id], expires_us=until_us)
        return _insert(connection, key, [new], now_us)[0]


def revoke(
    engine: Engine,
    principal: str,
    now_us: int,
    *,
    id: str | None = None,  # noqa: A002
    by: str = "",
    certified: bool = True,
) -> int:
    """Revoke one token of a principal, or all of them, and of a device the certificates issued before now.

    Returns how many tokens that were. Raises NotFoundError where there is nothing of it to revoke; `certified` tells
    whether a device without a token may have certificates.
    """
    with engine.begin() as connection:
        alone(connection)
        found = [one for one in _valid(connection, principal, now_us) if id in {None, one.id}]
        bars = id is None and is_device_name(principal)
        if not found and not (bars and certified):
            which = "valid token" if id is None else f"valid token {id!r}"
            raise NotFoundError(
                f"{principal!r} has no {which}: nothing was revoked",
                hint="list them with: qala devices credential list; refuse certificates of an unknown device with --certificates",
            )
        _change(connection, [one.id for one in found], revoked_us=now_us)
        if bars:
            _bar(connection, principal, now_us, by)
        return len(found)


def _check(wanted: Issue) -> None:
    if not _NAME.fullmatch(wanted.principal):
        raise ConfigError(
            f"not the name of a device or a gateway: {wanted.principal!r}",
            hint="a device is FLEET/DEVICE, a gateway a name without '/': letters, digits and _ . : -",
        )
    if wanted.principal.startswith(_OF_BROKERS) and not is_device_name(wanted.principal):
        raise ConfigError(
            f"{wanted.principal!r} is how the journal names an existing broker", hint="choose another name"
        )
    if not wanted.filters and not is_device_name(wanted.principal):
        raise ConfigError(
            f"the gateway {wanted.principal!r} may publish nowhere",
            hint="name the topics it may publish on with --topic",
        )
    if len(wanted.filters) > FILTERS_MAX or len(wanted.note) > NOTE_MAX:
        raise ConfigError(
            "too many filters, or too long a note", hint=f"at most {FILTERS_MAX} filters and {NOTE_MAX} letters"
        )
    for topic_filter in wanted.filters:
        _check_filter(topic_filter)


def _check_filter(text: str) -> None:
    """Make sure that a text is an MQTT topic filter (MQTT 5, section 4.7). Raises ConfigError."""
    levels = text.split("/")
    whole = all(level in {"+", "#"} or not set(level) & {"+", "#", "\0"} for level in levels)
    if not 0 < len(text.encode()) <= FILTER_MAX or not whole or "#" in levels[:-1]:
        raise ConfigError(
            f"not a topic filter: {text!r}", hint="'+' stands for one level, '#' for all that follow, at the end alone"
        )


def _is_valid_token(now_us: int) -> tuple[ColumnElement[bool], ...]:
    expires_us = _credential.c.expires_us
    return (
        _credential.c.kind == CredentialKind.TOKEN,
        _credential.c.revoked_us.is_(None),
        or_(expires_us.is_(None), expires_us > now_us),
    )


def _valid(connection: Connection, principal: str, now_us: int) -> list[Credential]:
    query = select(_credential).where(_credential.c.principal == principal, *_is_valid_token(now_us))
    return _rows(connection.execute(query.order_by(*_IN_ORDER)).mappings())


def _insert(connection: Connection, key: bytes, wanted: Sequence[Issue], now_us: int) -> list[Issued]:
    change = last_change(connection) + 1
    issued = [_made(key, each, now_us, change) for each in wanted]
    if issued:
        connection.execute(insert(_credential), [msgspec.structs.asdict(one.credential) for one in issued])
    return issued


def _made(key: bytes, wanted: Issue, now_us: int, change: int) -> Issued:
    id_, secret = _new_id(), secrets.token_urlsafe(32)
    row = Credential(
        id_,
        wanted.principal,
        CredentialKind.TOKEN,
        digest(key, secret),
        list(wanted.filters),
        now_us,
        wanted.created_by,
        wanted.expires_us,
        None,
        wanted.note,
        change,
    )
    return Issued(row, f"{id_}.{secret}")


def _change(connection: Connection, ids: Collection[str], **values: int) -> None:
    connection.execute(
        update(_credential).where(_credential.c.id.in_(ids)).values(change=last_change(connection) + 1, **values)
    )


def _bar(connection: Connection, principal: str, now_us: int, by: str) -> None:
    """Refuse certificates of a device that were issued before now; one row a device says so."""
    change = last_change(connection) + 1
    here = (_credential.c.principal == principal, _credential.c.kind == CredentialKind.CERTIFICATES)
    again = update(_credential).where(*here).values(created_us=now_us, created_by=by, change=change)
    if not connection.execute(again).rowcount:
        row = _certificate_row(principal, now_us, by, change)
        connection.execute(insert(_credential).values(msgspec.structs.asdict(row)))


def _certificate_row(principal: str, now_us: int, by: str, change: int) -> Credential:
    """Make the row that says that certificates of a device from before now are refused."""
    kind = CredentialKind.CERTIFICATES
    return Credential(_new_id(), principal, kind, b"", [], now_us, by, None, None, "", change)


# ---- what reads them


def last_change(connection: Connection) -> int:
    """Return the number of the last change, 0 where there was none."""
    return int(connection.execute(select(func.coalesce(func.max(_credential.c.change), 0))).scalar_one())


def changed_since(connection: Connection, change: int) -> list[Credential]:
    """Return the rows that changed after a change, in the order of changes; all that are not revoked for 0."""
    query = select(_credential).where(_credential.c.change > change)
    if not change:
        query = query.where(_credential.c.revoked_us.is_(None))
    return _rows(connection.execute(query.order_by(_credential.c.change)).mappings())


def list_credentials(
    engine: Engine, *, principal: str | None = None, after: tuple[str, int, str] | None = None, limit: int
) -> list[Credential]:
    """Return credentials by principal, then oldest first; `after` is (principal, created_us, id) of the page before."""
    query = select(_credential).order_by(*_IN_ORDER).limit(limit)
    if principal is not None:
        query = query.where(_credential.c.principal == principal)
    if after is not None:
        query = query.where(tuple_(*_IN_ORDER) > tuple_(*after))
    with engine.connect() as connection:
        return _rows(connection.execute(query).mappings())


def count_credentials(engine: Engine) -> dict[str, int]:
    """Count the credentials that were not revoked, by kind."""
    kind = _credential.c.kind
    query = select(kind, func.count()).where(_credential.c.revoked_us.is_(None)).group_by(kind)
    with engine.connect() as connection:
        return {str(name): int(count) for name, count in connection.execute(query)}


def _rows(found: Iterable[Any]) -> list[Credential]:
    return [Credential(**{**row, "kind": CredentialKind(row["kind"])}) for row in found]
