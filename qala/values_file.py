"""Values as a Parquet file, written a part at a time and there only when it is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from devices.errors import UnavailableError
from devices.value import Value
from qala.store.base import VALUES
from qala.store.rows import values_table

__all__ = ["values_file"]


@contextmanager
def values_file(path: Path) -> Iterator[Callable[[Sequence[Value]], None]]:
    """Give a function that adds values; at the end of the block the file takes the place of any before.

    Raises UnavailableError where it cannot be written.
    """
    unfinished = path.with_suffix(".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = pq.ParquetWriter(unfinished, VALUES, compression="zstd")
    except OSError as error:
        raise UnavailableError(f"cannot write {path}: {error.strerror}", hint="choose another folder") from error
    try:
        with writer:
            yield lambda values: writer.write_table(values_table(values)) if values else None
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
