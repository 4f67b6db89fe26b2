"""The bytes of a journal segment: its header and its frames. Pure, except for listing a folder."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zstandard

from devices.errors import VersionError
from ingest.message import RECORD_VERSION, Message

__all__ = [
    "FRAME_MAX",
    "HEADER_SIZE",
    "SCHEMA_VERSION",
    "Header",
    "Raw",
    "Row",
    "block_of",
    "decode_block",
    "encode_frame",
    "encode_header",
    "frame_at",
    "frame_need",
    "frames",
    "next_frame",
    "parse_header",
    "read_header",
    "segment_path",
    "segments",
]

SCHEMA_VERSION = 1
FRAME_MAX = 64 * 1024 * 1024  # a longer length than this is damage, not a frame [bytes]

_FILE_MAGIC = b"\x93QALAJ\r\n"
_FRAME_MAGIC = b"\xf5qF\x1a"
# magic, schema version, journal id, first number, CRC-32 of the fields before
_HEADER = struct.Struct("<8sI16sQI")
# magic, record version, sequence in the segment, messages, first number, length of the block, CRC-32 of all else
_FRAME = struct.Struct("<4sIQIQII")
_CRC = struct.Struct("<I")
HEADER_SIZE = _HEADER.size

Row = tuple[Any, ...]  # the fields of a Message in their order; defaults at the end may be left out

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Message]).decode


class Header(NamedTuple):
    """What the first bytes of a segment say."""

    journal: str
    first: int


class Raw(NamedTuple):
    """A frame whose checksum is right, its messages still packed. It lies at bytes `[start, stop)` of what was read."""

    start: int
    stop: int
    sequence: int
    first: int
    messages: int
    packed: bytes  # the whole frame


def segment_path(folder: Path, first: int) -> Path:
    """Name the segment that begins with message `first`."""
    return folder / f"{first:020d}.qj"


def segments(folder: Path) -> list[int]:
    """List the first numbers of the folder's segments, rising. A folder that does not exist has none."""
    return sorted(int(path.stem) for path in folder.glob("*.qj") if path.stem.isdecimal())


def encode_header(journal: str, first: int) -> bytes:
    """Make the header of a segment that begins with message `first`."""
    fields = _HEADER.pack(_FILE_MAGIC, SCHEMA_VERSION, bytes.fromhex(journal), first, 0)[: -_CRC.size]
    return fields + _CRC.pack(zlib.crc32(fields))


def parse_header(data: bytes, path: Path) -> Header | None:
    """Read a segment's header, or None where it is cut short or damaged (its frames can be read all the same).

    Raises:
        VersionError: a newer Qala wrote it.
    """
    if len(data) < HEADER_SIZE:
        return None
    magic, version, journal, first, crc = _HEADER.unpack_from(data)
    if magic != _FILE_MAGIC or crc != zlib.crc32(data[: HEADER_SIZE - _CRC.size]):
        return None
    _refuse_newer(version, SCHEMA_VERSION, path)
    return Header(journal.hex(), first)


def read_header(path: Path) -> Header | None:
    """Read the header of a segment file; see `parse_header`."""
    with path.open("rb") as file:
        return parse_header(file.read(HEADER_SIZE), path)


def _refuse_newer(found: int, known: int, where: object) -> None:
    if found > known:
        raise VersionError(
            f"{where}: written in journal format {found}, this Qala reads up to {known}",
            hint="start the newer Qala again, or let it drain this journal and give this one an empty data folder",
        )


_compressor = zstandard.ZstdCompressor(level=1)


def encode_frame(messages: Sequence[Message | Row], *, sequence: int, first: int) -> bytes:
    """Pack messages into one frame. Not to be called from two threads at once.

    Raises:
        ValueError: the frame would be longer than FRAME_MAX.
    """
    block = _compressor.compress(_encode(messages))
    if len(block) > FRAME_MAX:
        raise ValueError(f"a frame of {len(block)} bytes is over the limit of {FRAME_MAX}")
    fields = _FRAME.pack(_FRAME_MAGIC, RECORD_VERSION, sequence, len(messages), first, len(block), 0)[: -_CRC.size]
    return b"".join((fields, _CRC.pack(zlib.crc32(block, zlib.crc32(fields))), block))


def decode_block(raw: Raw) -> list[Message]:
    """Unpack the messages of a frame."""
    return _decode(block_of(raw))


def block_of(raw: Raw) -> bytes:
    """Return a frame's messages as one MessagePack document."""
    return zstandard.ZstdDecompressor().decompress(memoryview(raw.packed)[_FRAME.size :])


def _checksum(packed: bytes) -> int:
    view = memoryview(packed)
    return zlib.crc32(view[_FRAME.size :], zlib.crc32(view[: _FRAME.size - _CRC.size]))


def frame_at(data: bytes, at: int) -> Raw | None:
    """Read the frame that begins at byte `at`, or None where no whole and undamaged frame begins there.

    Raises:
        VersionError: a newer Qala wrote it.
    """
    if len(data) - at < _FRAME.size or not data.startswith(_FRAME_MAGIC, at):
        return None
    _, version, sequence, messages, first, length, crc = _FRAME.unpack_from(data, at)
    begin = at + _FRAME.size
    if length > len(data) - begin or length > FRAME_MAX:
        return None
    packed = data[at : begin + length]
    if crc != _checksum(packed):
        return None
    _refuse_newer(version, RECORD_VERSION, "a frame")
    return Raw(at, begin + length, sequence, first, messages, packed)


def frame_need(data: bytes, at: int) -> int:
    """Tell how many bytes, counted from `at`, must be there before a frame can be read; 0 where none begins."""
    if len(data) - at < _FRAME.size:
        return _FRAME.size if _FRAME_MAGIC.startswith(data[at : at + len(_FRAME_MAGIC)]) else 0
    if not data.startswith(_FRAME_MAGIC, at):
        return 0
    length: int = _FRAME.unpack_from(data, at)[5]
    return _FRAME.size + length if length <= FRAME_MAX else 0


def next_frame(data: bytes, at: int) -> Raw | None:
    """Read the first undamaged frame that begins at byte `at` or later."""
    while at >= 0:
        raw = frame_at(data, at)
        if raw is not None:
            return raw
        at = data.find(_FRAME_MAGIC, at + 1)
    return None


def frames(data: bytes, at: int = HEADER_SIZE) -> Iterator[Raw]:
    """Walk over the undamaged frames of a segment, skipping what is damaged between them."""
    raw = next_frame(data, at)
    while raw is not None:
        yield raw
        raw = next_frame(data, raw.stop)
