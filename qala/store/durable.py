"""Files that are on disk when it is said so: what a power cut must not take back."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["put_file", "sync", "sync_folder"]


def put_file(path: Path, content: bytes) -> None:
    """Write a file that is durable and whole when it appears under its name."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    sync(part)
    part.rename(path)
    sync_folder(path.parent)


def sync(path: Path) -> None:
    """Make what was written to a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    sync(folder)
