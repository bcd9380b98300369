"""A file system for readers that share an open file between threads, as DuckDB does.

DuckDB reads a place in a file by `seek` and then `read`, from several threads of one handle. A file
of Python has one position: one thread's `seek` would move where another is about to read.
"""

from __future__ import annotations

import threading
from typing import Any

from fsspec.spec import AbstractFileSystem


class SharedReads(AbstractFileSystem):  # type: ignore[misc]
    """``fs``, to read from: each thread has a position of its own in every file that it opens.

    >>> import fsspec
    >>> memory = fsspec.filesystem("memory")
    >>> memory.pipe("/shared_reads.txt", b"abc")
    >>> with SharedReads(memory).open("/shared_reads.txt") as file:
    ...     _ = file.seek(1)
    ...     file.read()
    b'bc'
    """

    cachable = False

    def __init__(self, fs: Any) -> None:
        super().__init__()
        self._fs = fs
        self.protocol = fs.protocol

    def _strip_protocol(self, path: Any) -> Any:
        return self._fs._strip_protocol(path)

    def open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> Positions:
        """Open a file for reading. Raises `ValueError` for another mode."""
        if mode not in ("r", "rb"):
            raise ValueError(f"files are only read here, not opened with mode {mode!r}")
        return Positions(self._fs.open(path, "rb"))

    def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
        """What lies below ``path``."""
        return self._fs.ls(path, detail=detail, **more)

    def info(self, path: str, **more: Any) -> Any:
        """Size and type of what is at ``path``."""
        return self._fs.info(path, **more)

    def modified(self, path: str) -> Any:
        """When a file was last written."""
        return self._fs.modified(path)


class Positions:
    """An open file in which each thread has its own position, in bytes."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lock = threading.Lock()
        # By the number that the system gives it: DuckDB's threads are not Python's, and what
        # Python keeps for a thread is gone between two calls of one.
        self._at: dict[int, int] = {}

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to ``offset`` from the start (0), from here (1) or from the end (2)."""
        me = threading.get_ident()
        if whence == 2:
            with self._lock:
                at = self._file.seek(offset, 2)
        else:
            at = offset + (self._at.get(me, 0) if whence == 1 else 0)
        self._at[me] = at
        return int(at)

    def tell(self) -> int:
        """Where this thread is."""
        return self._at.get(threading.get_ident(), 0)

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes from where this thread is, or up to the end."""
        me = threading.get_ident()
        at = self._at.get(me, 0)
        with self._lock:
            self._file.seek(at)
            data: bytes = self._file.read(size)
        self._at[me] = at + len(data)
        return data

    def close(self) -> None:
        """Close the file, for all threads."""
        self._file.close()

    def __enter__(self) -> Positions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


__all__ = ["Positions", "SharedReads"]
