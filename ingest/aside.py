"""What is not a device's own message: packets that were refused, answers to commands, probes, and words about others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from devices.errors import Reason
from ingest.formats.base import Decoded, Rejection
from ingest.gate import NOBODY, OWNER
from ingest.message import PROBE_TOPIC, Message, MessageType, Source
from ingest.mqtt.downlink import LARGER
from qala.state.commands import SENT, TOO_LARGE, Answer

__all__ = ["delivered", "is_aside", "of_itself", "probes", "refusal", "set_aside", "timed"]

_REFUSED = int(MessageType.REFUSED)
_DELIVERED = int(MessageType.DELIVERED)
_SUBSCRIBER = int(Source.SUBSCRIBER)
_PROBING = frozenset({NOBODY.name, OWNER.name})


def set_aside(messages: Sequence[Message], decoded: list[Decoded]) -> list[Message]:
    """Put right what messages that are not a device's own say, and what devices say of others; return the former.

    Refusals keep the door's reason, answers and probes say nothing of the city, what a broker had retained needs a time of
    its own, and a device is heard about itself alone.
    """
    found = [index for index, m in enumerate(messages) if m.type >= _REFUSED or m.topic == PROBE_TOPIC]
    for index in found:
        decoded[index] = _instead(messages[index], decoded[index])
    for index in [index for index, m in enumerate(messages) if m.retained and m.source == _SUBSCRIBER]:
        decoded[index] = timed(decoded[index])
    if any("/" in principal for principal in {message.principal for message in messages}):
        for index, (message, said) in enumerate(zip(messages, decoded, strict=True)):
            if "/" in message.principal and not _is_of(message.principal, said):
                decoded[index] = of_itself(message.principal, said)
    return [messages[index] for index in found]


def _is_of(device: str, decoded: Decoded) -> bool:
    reports = decoded.reports
    return len(reports) == 1 and reports[0].device == device


def _instead(message: Message, decoded: Decoded) -> Decoded:
    if message.type == _REFUSED:
        return refusal(message)
    return Decoded() if is_aside(message) else decoded


def is_aside(message: Message) -> bool:
    """Tell whether a message is about Qala itself, so that no device's account mentions it: an answer or a probe.

    A probe of anybody but the owner, or nobody in particular, is none.
    """
    return message.type == _DELIVERED or (message.topic == PROBE_TOPIC and message.principal in _PROBING)


def refusal(message: Message) -> Decoded:
    """Return the reason that the door gave for a packet that it could not take, under the device that sent it if it is known."""
    given = message.properties or {}
    known = given.get("reason", "") in set(Reason)
    reason = Reason(given["reason"]) if known else Reason.MALFORMED_PACKET
    device = message.principal if "/" in message.principal else ""
    offset = _whole(given.get("offset"))
    return Decoded(rejections=(Rejection(reason, given.get("detail", ""), device=device, offset=offset),))


def of_itself(device: str, decoded: Decoded) -> Decoded:
    """Reject what a device says of others; what it says of itself stays.

    >>> from ingest.formats.base import Status
    >>> of_itself("air/a1", Decoded(status=Status("air/a2", True))).rejections[0].reason.value
    'topic_mismatch'
    """
    others = [report for report in decoded.reports if report.device != device]
    said = [one for one in (decoded.status, decoded.metadata) if one is not None and one.device != device]
    if not others and not said:
        return decoded
    detail = f"{device} may speak of itself alone"
    return Decoded(
        reports=[report for report in decoded.reports if report.device == device],
        rejections=[
            *decoded.rejections,
            *(Rejection(Reason.TOPIC_MISMATCH, detail, "", r.device, len(r.keys)) for r in others),
            *(Rejection(Reason.TOPIC_MISMATCH, detail, "", one.device) for one in said),
        ],
        status=decoded.status if decoded.status not in said else None,
        metadata=decoded.metadata if decoded.metadata not in said else None,
    )


def timed(decoded: Decoded) -> Decoded:
    """Reject the readings that have no time of their own: of a retained message nobody knows how old it is."""
    timeless = [report for report in decoded.reports if report.time_us is None]
    if not timeless:
        return decoded
    detail = "a broker had retained it, and it does not say when it was measured"
    rejections = [Rejection(Reason.BAD_TIME, detail, "", report.device, len(report.keys)) for report in timeless]
    return Decoded(
        reports=[report for report in decoded.reports if report.time_us is not None],
        rejections=[*decoded.rejections, *rejections],
        status=decoded.status,
        metadata=decoded.metadata,
    )


def delivered(messages: Iterable[Message]) -> list[Answer]:
    """Return what became of commands at the door."""
    answers = []
    for message in messages:
        given = message.properties or {}
        if message.type == _DELIVERED and "command" in given:
            said = given.get("code")
            code = TOO_LARGE if said == LARGER else _whole(said)  # none where nobody can tell: sent with QoS 0
            answers.append(
                Answer(given["command"], SENT if code is None else code, message.received_us, message.principal)
            )
    return answers


def probes(messages: Iterable[Message]) -> list[int]:
    """Return when the probes among messages were sent [UTC us]; one that does not say so is left out."""
    found = (_whole(m.payload.decode("ascii", "replace")) for m in messages if m.topic == PROBE_TOPIC and is_aside(m))
    return [sent_us for sent_us in found if sent_us is not None]


def _whole(text: str | None) -> int | None:
    """Read a whole number of at most 18 digits; None where there is none.

    >>> _whole("12"), _whole("-1"), _whole("1" * 19), _whole(None)
    (12, None, None, None)
    """
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= 18 else None
