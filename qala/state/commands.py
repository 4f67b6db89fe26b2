"""Commands to devices: what was asked, by whom, until when, and how it ended.

A command is a row that is written once and then only completed: by its sending, by the device's answer, by a
cancellation. What became of it follows from the row and the time, and is written nowhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from enum import StrEnum

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from devices.errors import ConflictError, NotFoundError
from qala.state.database import METADATA, alone

__all__ = [
    "EXPIRES_MAX_S",
    "KEEP_DAYS",
    "PAYLOAD_MAX",
    "PENDING_MAX",
    "SENT",
    "TOO_LARGE",
    "Answer",
    "CommandRow",
    "CommandState",
    "OpenCommand",
    "awaited",
    "cancel_command",
    "command",
    "command_counts",
    "commands",
    "devices_awaited",
    "record_delivered",
    "request_command",
]

PAYLOAD_MAX = 64 * 1024  # bytes
PENDING_MAX = 100  # open commands of one device
_OPEN_MAX = 100_000  # open commands of all devices
_AT_ONCE = 16  # commands of one device that the door takes at once
EXPIRES_MAX_S = 30 * 86_400
KEEP_DAYS = 400  # how long a command that has ended can still be looked up
SENT = 256  # in place of a reason code, which is a byte: the command went out, and nothing is known of its arrival
TOO_LARGE = 257  # likewise: it cannot go out, since who listens takes no packets of its size
_REFUSED = 0x80  # reason codes from here on mean that the device did not take it (MQTT 5, section 2.4)
_DAY_US = 86_400_000_000
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # rises as ASCII does, so that ids sort by their time

COMMAND = Table(
    "command",
    METADATA,
    Column("id", String(20), primary_key=True),  # sorts by time of request
    Column("device", String, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("requested_by", String(200), nullable=False),
    Column("requested_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("key", String(200)),  # the requester's idempotency key
    Column("sent_us", BigInteger),  # first time that the door sent it
    Column("delivered_us", BigInteger),
    Column("code", Integer),  # the reason code of the device's acknowledgement
    Column("cancelled_us", BigInteger),
    Column("cancelled_by", String(200)),
    Column(
        "answered_by", String(200)
    ),  # the principal that acknowledged it, or could not get it: the device, or a gateway
    Index("command_of_device", "device", "id"),
    Index("command_key", "device", "key", unique=True),
    Index("command_expiry", "expires_us"),
)
_is_open = and_(COMMAND.c.delivered_us.is_(None), COMMAND.c.cancelled_us.is_(None))
Index("command_open", COMMAND.c.device, COMMAND.c.expires_us, sqlite_where=_is_open, postgresql_where=_is_open)


class CommandState(StrEnum):
    """What became of a command so far."""

    PENDING = "pending"  # waits for its device to subscribe
    SENT = "sent"  # went out to the device, which has not acknowledged it
    DELIVERED = "delivered"
    REFUSED = "refused"  # the device got it, and said that it does not take it
    EXPIRED = "expired"  # never went out
    UNCONFIRMED = "unconfirmed"  # went out and was never acknowledged: the device may have it or not
    CANCELLED = "cancelled"
    TOO_LARGE = "too_large"  # did not go out: who listens takes no packets of its size


class Answer(msgspec.Struct, frozen=True):
    """What the door has learnt of a command: a device's reason code, SENT or TOO_LARGE; through whom, "" for nobody known."""

    command: str
    code: int
    at_us: int
    by: str = ""


class CommandRow(msgspec.Struct, frozen=True):
    """A command and how it went. `code` is the reason code of the acknowledgement, or TOO_LARGE."""

    id: str
    device: str
    payload: bytes
    requested_by: str
    requested_us: int
    expires_us: int
    key: str | None
    sent_us: int | None
    delivered_us: int | None
    code: int | None
    cancelled_us: int | None
    cancelled_by: str | None
    answered_by: str | None = None

    def state(self, now_us: int) -> CommandState:
        """Tell what became of it by `now_us`. What the device said counts more than what people wanted."""
        if self.code == TOO_LARGE:
            return CommandState.TOO_LARGE
        if self.delivered_us is not None:
            return CommandState.REFUSED if (self.code or 0) >= _REFUSED else CommandState.DELIVERED
        if self.cancelled_us is not None:
            return CommandState.CANCELLED
        if self.sent_us is not None:
            return CommandState.SENT if now_us < self.expires_us else CommandState.UNCONFIRMED
        return CommandState.PENDING if now_us < self.expires_us else CommandState.EXPIRED

    def reason(self, now_us: int) -> str | None:
        """Say in words why it ended without having been taken; None where it did not."""
        state = self.state(now_us)
        if state is CommandState.REFUSED:
            return f"{self.answered_by or self.device} answered with reason code 0x{self.code or 0:02x}"
        return _REASONS.get(state, "").format(by=self.answered_by or self.device) or None


_REASONS = {
    CommandState.EXPIRED: "{by} did not listen until it expired",
    CommandState.UNCONFIRMED: "it went out, and was not acknowledged until it expired",
    CommandState.TOO_LARGE: "{by} takes no packets of its size (Maximum Packet Size): send a shorter one",
}


class OpenCommand(msgspec.Struct, frozen=True):
    """What the door needs of a command that is still to be delivered."""

    id: str
    device: str
    payload: bytes
    expires_us: int


def request_command(
    engine: Engine, device: str, payload: bytes, *, by: str, now_us: int, expires_us: int, key: str | None = None
) -> CommandRow:
    """Write a command and return it; a key that this device's commands had before returns that command.

    Raises ConflictError where too many wait already, or where the key was given with another payload. Commands that ended
    long ago go meanwhile.
    """
    with engine.begin() as connection:
        alone(connection)
        connection.execute(delete(COMMAND).where(COMMAND.c.expires_us < now_us - KEEP_DAYS * _DAY_US))
        if key is not None and (known := _by_key(connection, device, key)) is not None:
            if known.payload != payload:
                raise ConflictError(
                    f"the idempotency key {key!r} belongs to another command of {device}", hint="choose a new key"
                )
            return known
        _check_room(connection, device, now_us)
        row = CommandRow(
            _new_id(now_us), device, payload, by, now_us, expires_us, key, None, None, None, None, None
        )  # fmt: skip
        connection.execute(insert(COMMAND).values(**msgspec.structs.asdict(row)))
    return row


def cancel_command(engine: Engine, id: str, *, by: str, now_us: int) -> CommandRow:  # noqa: A002
    """Take back a command that was not delivered yet, and return it. Cancelling it again changes nothing.

    A device that has received it already may still acknowledge it. Raises NotFoundError, and ConflictError where it has
    ended otherwise.
    """
    open_one = update(COMMAND).where(COMMAND.c.id == id, _is_open, COMMAND.c.expires_us > now_us)
    with engine.begin() as connection:
        connection.execute(open_one.values(cancelled_us=now_us, cancelled_by=by))
    found = command(engine, id)
    state = found.state(now_us)
    if state is not CommandState.CANCELLED:
        raise ConflictError(f"the command has ended already: it is {state.value}", hint="request another one instead")
    return found


def record_delivered(engine: Engine, answers: Sequence[Answer]) -> None:
    """Note what the door has learnt of commands.

    The first answer of a command counts, so that taking the same messages again changes nothing. Unknown commands are
    passed over.
    """
    with engine.begin() as connection:
        for one in answers:
            is_sent = one.code == SENT
            answer = {"delivered_us": one.at_us, "code": one.code, "answered_by": one.by or None}
            known = {"sent_us": one.at_us} if is_sent else answer
            column = COMMAND.c.sent_us if is_sent else COMMAND.c.delivered_us
            connection.execute(update(COMMAND).where(COMMAND.c.id == one.command, column.is_(None)).values(**known))


def command(engine: Engine, id: str) -> CommandRow:  # noqa: A002
    """Return one command. Raises NotFoundError."""
    with engine.connect() as connection:
        row = connection.execute(select(COMMAND).where(COMMAND.c.id == id)).one_or_none()
    if row is None:
        raise NotFoundError(f"no command has the id {id!r}", hint="list them with: qala devices commands")
    return CommandRow(*row)


def commands(
    engine: Engine,
    *,
    now_us: int,
    device: str | None = None,
    state: CommandState | None = None,
    before: str | None = None,
    limit: int = 1_000,
) -> list[CommandRow]:
    """List commands, the newest first; `before` is the id of the last one of the page before."""
    query = select(COMMAND).order_by(COMMAND.c.id.desc()).limit(limit)
    if device is not None:
        query = query.where(COMMAND.c.device == device)
    if state is not None:
        query = query.where(_in_state(state, now_us))
    if before is not None:
        query = query.where(COMMAND.c.id < before)
    with engine.connect() as connection:
        return [CommandRow(*row) for row in connection.execute(query)]


def devices_awaited(engine: Engine, now_us: int) -> frozenset[str]:
    """Return the devices that have commands to be delivered."""
    query = select(COMMAND.c.device).where(_is_open, COMMAND.c.expires_us > now_us).distinct()
    with engine.connect() as connection:
        return frozenset(connection.execute(query).scalars())


def awaited(engine: Engine, devices: Collection[str], now_us: int, *, but: Collection[str] = ()) -> list[OpenCommand]:
    """Return the first commands of each device that are to be delivered, in their order, leaving out the ids `but`."""
    open_ones = (
        select(COMMAND.c.device, COMMAND.c.id)
        .where(_is_open, COMMAND.c.expires_us > now_us, COMMAND.c.device.in_(sorted(devices)))
        .order_by(COMMAND.c.id)
    )
    columns = (COMMAND.c.id, COMMAND.c.device, COMMAND.c.payload, COMMAND.c.expires_us)
    with engine.connect() as connection:
        firsts: dict[str, list[str]] = {}
        for device, id_ in connection.execute(open_ones):
            theirs = firsts.setdefault(device, [])
            if id_ not in but and len(theirs) < _AT_ONCE:
                theirs.append(id_)
        chosen = [id_ for theirs in firsts.values() for id_ in theirs]
        found = select(*columns).where(COMMAND.c.id.in_(chosen)).order_by(COMMAND.c.id)
        return [OpenCommand(*row) for row in connection.execute(found)]


def command_counts(engine: Engine, now_us: int) -> dict[str, int]:
    """Count the commands that are kept, by state."""
    counts = [func.count().filter(_in_state(state, now_us)) for state in CommandState]
    with engine.connect() as connection:
        row = connection.execute(select(*counts).select_from(COMMAND)).one()
    return {state.value: int(count) for state, count in zip(CommandState, row, strict=True)}


def _in_state(state: CommandState, now_us: int) -> ColumnElement[bool]:
    """Say in SQL what `CommandRow.state` says."""
    table = COMMAND.c
    answered, was_sent, due = table.delivered_us.is_not(None), table.sent_us.is_not(None), table.expires_us > now_us
    refused, too_large = func.coalesce(table.code, 0) >= _REFUSED, func.coalesce(table.code, 0) == TOO_LARGE
    return {
        CommandState.PENDING: and_(_is_open, ~was_sent, due),
        CommandState.SENT: and_(_is_open, was_sent, due),
        CommandState.DELIVERED: and_(answered, ~refused),
        CommandState.REFUSED: and_(answered, refused, ~too_large),
        CommandState.EXPIRED: and_(_is_open, ~was_sent, ~due),
        CommandState.UNCONFIRMED: and_(_is_open, was_sent, ~due),
        CommandState.CANCELLED: and_(~answered, table.cancelled_us.is_not(None)),
        CommandState.TOO_LARGE: too_large,
    }[state]


def _by_key(connection: Connection, device: str, key: str) -> CommandRow | None:
    query = select(COMMAND).where(COMMAND.c.device == device, COMMAND.c.key == key)
    row = connection.execute(query).one_or_none()
    return None if row is None else CommandRow(*row)


def _check_room(connection: Connection, device: str, now_us: int) -> None:
    is_theirs = COMMAND.c.device == device
    counts = select(func.count().filter(is_theirs), func.count()).where(_is_open, COMMAND.c.expires_us > now_us)
    theirs, all_ = connection.execute(counts).one()
    if theirs >= PENDING_MAX or all_ >= _OPEN_MAX:
        of = device if theirs >= PENDING_MAX else "all devices together"
        raise ConflictError(
            f"too many commands of {of} wait to be delivered", hint="cancel some, or wait until they expire"
        )


def _new_id(now_us: int) -> str:
    """Make an id of 11 letters that rise with the time and 5 that nobody guesses."""
    time_part = "".join(_ALPHABET[now_us >> shift & 31] for shift in range(50, -1, -5))
    return time_part + "".join(secrets.choice(_ALPHABET) for _ in range(5))
