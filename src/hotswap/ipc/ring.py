"""A ring in a mapped file: one process writes, another reads, neither waits for the other.

It lies in the runtime directory and outlives both: what a killed writer had put in is still read,
and a reader that comes back goes on where the one before had got to. A chunk is ``u32 length, u32
mark, bytes``, padded to 8 bytes, and never wraps. Only once it is in place does the head move. x86
shows a reader the bytes before the head, then. Other processors may not: there the mark is the
bytes' CRC-32, by which a reader is told, and looks again later.
"""

from __future__ import annotations

import errno
import mmap
import os
import platform
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zlib import crc32

#: Bytes of one ring's chunks.
SIZE: Final = 16 * 1024 * 1024
_HEAD, _TAIL, _DROPPED, _WRITTEN_AT, _MAGIC, _LOSING = 0, 1, 2, 3, 4, 5
_HEADER: Final = 4096
_PREFIX: Final = struct.Struct("<II")
_SKIP: Final = 0xFFFF_FFFF
#: The mark of a chunk without a checksum: it costs as much as all the rest of writing one.
_THERE: Final = 1
CHECKED = platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686")
_KNOWN: Final = 0x676E69722D736B01
_LEAST: Final = 1024 * 1024
_ZEROS: Final = memoryview(bytes(64 * 1024))


class Ring:
    """One ring. ``size``: bytes of chunks, a multiple of 8.

    >>> import tempfile
    >>> ring = Ring.create(Path(tempfile.mkdtemp()) / "0.0", 1024)
    >>> ring.put([b"one", b"two"], records=2), [bytes(c) for c, _ in ring.chunks()]
    (True, [b'onetwo'])
    """

    def __init__(self, path: Path) -> None:
        """Map one that is there. Raises `ValueError` if it is none (yet), `OSError`."""
        with open(path, "r+b") as file:
            total = os.fstat(file.fileno()).st_size
            if total <= _HEADER:
                raise ValueError(f"{path.name} is no ring yet")
            self._map = mmap.mmap(file.fileno(), total)
        self.path = path
        self.size = total - _HEADER
        self._words = memoryview(self._map)[:_HEADER].cast("Q")
        self._bytes = memoryview(self._map)[_HEADER:]
        if self._words[_MAGIC] != _KNOWN:
            self.close()
            raise ValueError(f"{path.name} is no ring")

    @classmethod
    def create(cls, path: Path, size: int | None = None) -> Ring:
        """Make one, or take over what an earlier writer left. Raises `OSError`: no room for it.

        Without ``size``: `SIZE`, or less where memory for it is scarce.
        """
        try:
            return cls(path)
        except (FileNotFoundError, ValueError):
            pass
        size = fitting(path.parent) if size is None else size
        hidden = path.with_name(f".{path.name}")
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # Taken now: a page that cannot be had later would kill whoever writes to it.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, _HEADER + size)
            else:
                os.truncate(hidden, _HEADER + size)
            os.pwrite(descriptor, struct.pack("=Q", _KNOWN), _MAGIC * 8)
        except OSError:
            os.unlink(hidden)
            raise
        finally:
            os.close(descriptor)
        os.replace(hidden, path)
        return cls(path)

    def close(self) -> None:
        """Unmap it."""
        self._words.release()
        self._bytes.release()
        self._map.close()

    # --- the writer

    def put(self, parts: list[bytes], records: int) -> bool:
        """Put in one chunk; False, and ``records`` counted as dropped, if there is no room."""
        words = self._words
        length = 0
        for part in parts:
            length += len(part)
        need = (8 + length + 7) & ~7
        head, tail = int(words[_HEAD]), int(words[_TAIL])
        at = head % self.size
        to_end = self.size - at
        skip = to_end if to_end < need else 0
        if need + skip > self.size - (head - tail):
            words[_DROPPED] += records
            return False
        view = self._bytes
        if skip:
            _PREFIX.pack_into(view, at, _SKIP, 0)
            at = 0
        start = at + 8
        for part in parts:
            end = start + len(part)
            view[start:end] = part
            start = end
        mark = crc32(view[at + 8 : start]) or _THERE if CHECKED else _THERE
        _PREFIX.pack_into(view, at, length, mark)
        words[_HEAD] = head + skip + need
        return True

    def settle(self, wall_us: int) -> None:
        """Everything until then (Unix time, µs) was put in, or found no room."""
        self._words[_WRITTEN_AT] = wall_us

    @property
    def losing(self) -> bool:
        """Whether its reader said that it cannot keep what it reads."""
        return bool(self._words[_LOSING])

    def drop(self, records: int) -> None:
        """So many were not even tried."""
        self._words[_DROPPED] += records

    # --- the reader

    @property
    def dropped(self) -> int:
        """Records that found no room, ever."""
        return int(self._words[_DROPPED])

    @property
    def written_at(self) -> int:
        """Up to when (Unix time, µs) its writer has put in everything."""
        return int(self._words[_WRITTEN_AT])

    def chunks(self) -> Iterator[tuple[memoryview, int]]:
        """What was not released yet, oldest first, each with the position behind it."""
        view = self._bytes
        at, head = int(self._words[_TAIL]), int(self._words[_HEAD])
        while at < head:
            offset = at % self.size
            length, mark = _PREFIX.unpack_from(view, offset)
            if length == _SKIP:
                at += self.size - offset
                continue
            if length > self.size - offset - 8:
                return  # its bytes are not there yet
            chunk = view[offset + 8 : offset + 8 + length]
            # A mark that is not there yet is 0, or that of what lay here before.
            if not mark or (mark != _THERE and crc32(chunk) != mark):
                return
            at += (8 + length + 7) & ~7
            yield chunk, at

    def release(self, position: int, wipe: bool = False) -> None:
        """What lies before this position is kept elsewhere now: its room is free.

        ``wipe``: with zeros over it.
        """
        at = int(self._words[_TAIL])
        while wipe and at < position:
            offset = at % self.size
            size = min(position - at, self.size - offset, len(_ZEROS))
            self._bytes[offset : offset + size] = _ZEROS[:size]
            at += size
        self._words[_TAIL] = position

    def lose(self, losing: bool) -> None:
        """Tell the writer that nothing that it puts in is kept now, or that it is again."""
        self._words[_LOSING] = losing

    def skip(self) -> None:
        """Give up on all that is in it: nothing of that can be read."""
        self._words[_TAIL] = self._words[_HEAD]

    @property
    def filled(self) -> int:
        """Bytes that were not released yet."""
        return int(self._words[_HEAD]) - int(self._words[_TAIL])

    @property
    def position(self) -> int:
        """Up to where it was released."""
        return int(self._words[_TAIL])


def fitting(folder: Path) -> int:
    """Bytes that a ring may take there: an eighth of what is free, for its neighbours need room too.

    Raises `OSError` if that is too little for any.
    """
    try:
        free = shutil.disk_usage(folder).free
    except FileNotFoundError:
        free = 0
    size = SIZE
    while size > free // 8:
        size //= 2
    if size < _LEAST:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    return size


__all__ = ["SIZE", "Ring", "fitting"]
