"""The files of a lake, in a folder or at a URL of fsspec: read, written whole or in one go, listed, removed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devices.errors import ConfigError, NotFoundError, UnavailableError
from qala.store.durable import put_file

__all__ = ["Hashed", "LakeFiles"]

_CHUNK = 1 << 20
_HINT = "name a folder, or a URL that fsspec knows, such as s3://bucket/lake with the package s3fs installed"


class LakeFiles:
    """Names below a root. Raises UnavailableError where the root cannot be reached."""

    def __init__(self, url: str) -> None:
        """Find the file system of a URL. Raises ConfigError where none is known, or its package is missing."""
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        try:
            self._fs, root = url_to_fs(url if "://" in url else str(Path(url).expanduser()), use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"no lake can be at {url!r}: {error}", hint=_HINT) from error
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self.url = url

    def names(self, folder: str) -> list[str]:
        """List what lies in a folder; nothing where it does not exist."""
        with self._reached():
            try:
                return [path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._path(folder), detail=False)]
            except FileNotFoundError:
                return []

    def exists(self, name: str) -> bool:
        with self._reached():
            return bool(self._fs.exists(self._path(name)))

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None where there is none."""
        with self._reached():
            try:
                return bytes(self._fs.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """Open a file for reading. Raises NotFoundError where there is none."""
        with self._reached():
            try:
                file = self._fs.open(self._path(name), "rb")
            except FileNotFoundError:
                raise NotFoundError(f"the lake has no {name}", hint="export the day again") from None
        with file:
            yield file

    @contextmanager
    def create(self, name: str) -> Iterator[Hashed]:
        """Write a file that nobody reads yet; it is durable at the end of the block."""
        with self._reached():
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            with self._fs.open(self._path(name), "wb") as file:
                yield Hashed(file)
                if self._local:
                    file.flush()
                    os.fsync(file.fileno())

    def replace(self, name: str, data: bytes) -> None:
        """Put a small file in the place of the one before, whole or not at all."""
        path = self._path(name)
        with self._reached():
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            if not self._local:
                self._fs.pipe_file(path, data)  # one PUT: an object appears whole
                return
            put_file(Path(path), data)

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""
        with self._reached():
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def size(self, name: str) -> int | None:
        """Return the length of a file in bytes, None where there is none."""
        with self._reached():
            try:
                return int(self._fs.size(self._path(name)))
            except FileNotFoundError:
                return None

    def measure(self, name: str) -> tuple[int, str] | None:
        """Read a file and return its length and SHA-256, None where there is none."""
        found, length = hashlib.sha256(), 0
        try:
            with self.open(name) as file:
                while chunk := file.read(_CHUNK):
                    found.update(chunk)
                    length += len(chunk)
        except NotFoundError:
            return None
        return length, found.hexdigest()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root or "/"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UnavailableError(f"cannot reach the lake at {self.url}: {error}", hint=_HINT) from error


class Hashed:
    """A file being written, with the length and the SHA-256 of what was."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.length = 0
        self.closed = False  # pyarrow asks

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.length += len(data)
        self._file.write(data)
        return len(data)

    def tell(self) -> int:
        return self.length

    def flush(self) -> None:
        self._file.flush()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()
