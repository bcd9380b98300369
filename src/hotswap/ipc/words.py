"""Shared 8-byte words: the epoch of each model and the health of each host.

Both are anonymous memory files (`memfd_create`; elsewhere than on Linux, a temporary file
without a name) made by the supervisor and inherited by its children. They are read and written
only as ``memoryview(mm).cast("Q")[i]``: one aligned load or store, never torn
(`struct.pack_into` copies byte by byte and can be).
"""

from __future__ import annotations

import mmap
import os
from typing import Final

REVISION_MASK: Final = (1 << 63) - 1
STABLE_ONLY: Final = 1 << 63

#: How many models one node can have registered.
MODELS: Final = 65_536
#: How many host processes one node can have had slots for at once.
HOSTS: Final = 8_192

_HEALTH_WORDS: Final = 4
_BUSY: Final = 0
_RUNNING: Final = 1
_INCARNATION: Final = 2


class Words:
    """A fixed array of unsigned 64-bit words in shared memory.

    >>> words = Words.create("example", 4)
    >>> words[2] = 7
    >>> Words(words.fd, 4)[2]
    7
    """

    def __init__(self, fd: int, count: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, count * 8)
        self.view: memoryview = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, name: str, count: int) -> Words:
        """Make new zeroed words; the descriptor is inheritable only where it is passed on."""
        fd = _memory_file(name)
        os.ftruncate(fd, count * 8)
        return cls(fd, count)

    def __getitem__(self, index: int) -> int:
        return int(self.view[index])

    def __setitem__(self, index: int, value: int) -> None:
        self.view[index] = value


def _memory_file(name: str) -> int:
    """A file that nobody else can open; it goes with its last descriptor and mapping."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    import tempfile

    fd, path = tempfile.mkstemp(prefix=f"{name}-")
    os.unlink(path)
    return fd


class Epoch:
    """One word a model: the revision that new requests must be routed by.

    Bit 63 set means *stable only*: no request may be assigned to a candidate.
    """

    def __init__(self, words: Words) -> None:
        self.words = words
        self.view = words.view

    def revision(self, index: int) -> int:
        """The revision in force (0: none yet)."""
        return int(self.view[index]) & REVISION_MASK

    def commit(self, index: int, revision: int) -> None:
        """The flip: one aligned store. Keeps nothing of the former word: a commit ends *stable only*."""
        self.view[index] = revision

    def stable_only(self, index: int) -> None:
        """Take the candidate out of the route at once, whatever the table says."""
        self.view[index] = self.view[index] | STABLE_ONLY


class Health:
    """Four words a host slot: busy since when, on which request, in which incarnation.

    Written by the host, read by the supervisor (hang limit) and by workers (which request was
    running when the host died). ``running`` is a worker's token of a request that was sent
    *alone*, else 0.
    """

    def __init__(self, words: Words) -> None:
        self.words = words
        self.view = words.view

    def start(self, slot: int, incarnation: int) -> None:
        """A host begins its life in this slot."""
        at = slot * _HEALTH_WORDS
        self.view[at + _BUSY] = 0
        self.view[at + _RUNNING] = 0
        self.view[at + _INCARNATION] = incarnation

    def busy(self, slot: int, since_ns: int, token: int) -> None:
        """The host calls the model now. ``running`` goes first: a crash in between blames nobody else."""
        at = slot * _HEALTH_WORDS
        self.view[at + _RUNNING] = token
        self.view[at + _BUSY] = since_ns

    def idle(self, slot: int) -> None:
        """The call is over."""
        at = slot * _HEALTH_WORDS
        self.view[at + _BUSY] = 0
        self.view[at + _RUNNING] = 0

    def busy_since(self, slot: int) -> int:
        """Monotonic nanoseconds since when it runs, 0 while it is idle."""
        return int(self.view[slot * _HEALTH_WORDS + _BUSY])

    def running(self, slot: int) -> tuple[int, int]:
        """(token, incarnation) of what ran last."""
        at = slot * _HEALTH_WORDS
        return int(self.view[at + _RUNNING]), int(self.view[at + _INCARNATION])


HEALTH_WORDS: Final = HOSTS * _HEALTH_WORDS
