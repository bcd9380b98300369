"""Operational counters in a file that outlives its process.

Each worker slot has one memory-mapped file in the runtime directory; its worker adds to words
in it, and anyone may read it at any time. So a ``kill -9`` loses no count, a restarted worker
goes on where the dead one stopped, and the sum over all files is the truth, whoever asks.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

from hotswap.core.histogram import BUCKETS, bucket, upper_bound
from hotswap.core.stats import ModelStats

WORDS: Final = 320
BLOCKS: Final = 16_384
_KEY_BYTES: Final = 47 * 8

KINDS: Final = (
    "model",
    "timeout",
    "invalid_output",
    "overload",
    "lost",
    "cancelled",
    "memory",
    "unavailable",
)

_SUCCESS: Final = 48
_STARTED: Final = 49
_FINISHED: Final = 50
_INFERENCES: Final = 51
_EXECUTIONS: Final = 52
_SUCCESS_NS: Final = 53
_FAIL_NS: Final = 54
_QUEUE_NS: Final = 55
_COMPUTE_NS: Final = 56
_LAST: Final = 57
_FALLBACKS: Final = 58
_DROPPED: Final = 59
_ERRORS: Final = 64
_HISTOGRAM: Final = 80
assert _HISTOGRAM + BUCKETS <= WORDS

_KIND: Final = {kind: at for at, kind in enumerate(KINDS)}


class Block:
    """The counters of one (model, version, role) in one worker slot."""

    __slots__ = ("at", "view")

    def __init__(self, view: memoryview, at: int) -> None:
        self.view = view
        self.at = at

    def begin(self) -> None:
        """A request is in flight."""
        self.view[self.at + _STARTED] += 1

    def succeed(self, ns: int, rows: int, queue_ns: int, compute_ns: int, wall_ms: int) -> None:
        """It was answered, ``ns`` nanoseconds after `begin`."""
        view, at = self.view, self.at
        view[at + _FINISHED] += 1
        view[at + _SUCCESS] += 1
        view[at + _INFERENCES] += rows
        view[at + _EXECUTIONS] += 1
        view[at + _SUCCESS_NS] += ns
        view[at + _QUEUE_NS] += queue_ns
        view[at + _COMPUTE_NS] += compute_ns
        view[at + _LAST] = wall_ms
        view[at + _HISTOGRAM + bucket(ns)] += 1

    def fail(self, ns: int, kind: str) -> None:
        """It was not; ``kind`` is one of `KINDS`."""
        view, at = self.view, self.at
        view[at + _FINISHED] += 1
        view[at + _FAIL_NS] += ns
        view[at + _ERRORS + _KIND[kind]] += 1

    def fell_back(self) -> None:
        """Another version answered for this one."""
        self.view[self.at + _FALLBACKS] += 1

    def drop(self) -> None:
        """A copy for this version was not sent, for lack of room."""
        self.view[self.at + _DROPPED] += 1


class TallyFile:
    """One worker slot's file. The writer is the slot's only live worker."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = WORDS * 8 * BLOCKS
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)  # sparse: pages exist once they are counted in
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self.view: memoryview = memoryview(self._map).cast("Q")
        self._blocks: dict[tuple[str, str, str], Block] = {}
        self._used = 0
        while self._used < BLOCKS and self.view[self._used * WORDS]:
            at = self._used * WORDS
            self._blocks[_read_key(self._map, self.view, at)] = Block(self.view, at)
            # What a dead predecessor had in flight is in flight no more.
            self.view[at + _FINISHED] = self.view[at + _STARTED]
            self._used += 1

    def block(self, model: str, version: str, role: str) -> Block:
        """The counters of this key, made at first use. A full file shares its last block."""
        key = (model, version, role)
        found = self._blocks.get(key)
        if found is None:
            if self._used >= BLOCKS:
                return Block(self.view, (BLOCKS - 1) * WORDS)
            at = self._used * WORDS
            raw = "\0".join(key).encode()[:_KEY_BYTES]
            self._map[at * 8 + 8 : at * 8 + 8 + len(raw)] = raw
            self.view[at] = len(raw)  # last: a reader sees the key whole or not at all
            self._used += 1
            self._blocks[key] = found = Block(self.view, at)
        return found

    def close(self) -> None:
        """Unmap; the file stays."""
        self._blocks.clear()
        self.view.release()
        self._map.close()


def _read_key(raw: mmap.mmap, view: memoryview, at: int) -> tuple[str, str, str]:
    text = raw[at * 8 + 8 : at * 8 + 8 + int(view[at])].decode(errors="replace")
    model, version, role = [*text.split("\0"), "", "", ""][:3]
    return model, version, role


def read_tallies(folder: Path) -> list[ModelStats]:
    """The sums over a folder's files, by (model, version, role), sorted."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for path in sorted(folder.iterdir()):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            raw = mmap.mmap(fd, WORDS * 8 * BLOCKS, prot=mmap.PROT_READ)
        except ValueError:
            continue  # just created, not yet sized
        finally:
            os.close(fd)
        view = memoryview(raw).cast("Q")
        try:
            for number in range(BLOCKS):
                at = number * WORDS
                if not view[at]:
                    break
                key = _read_key(raw, view, at)
                block = view[at : at + WORDS].tolist()
                seen = sums.get(key)
                if seen is None:
                    sums[key] = block
                else:
                    latest = max(seen[_LAST], block[_LAST])
                    sums[key] = [a + b for a, b in zip(seen, block, strict=True)]
                    sums[key][_LAST] = latest
        finally:
            view.release()
            raw.close()
    return [_stats(key, words) for key, words in sorted(sums.items())]


def _stats(key: tuple[str, str, str], words: list[int]) -> ModelStats:
    model, version, role = key
    return ModelStats(
        model=model,
        version=version,
        role=role,
        success=words[_SUCCESS],
        errors={kind: words[_ERRORS + at] for at, kind in enumerate(KINDS) if words[_ERRORS + at]},
        inferences=words[_INFERENCES],
        executions=words[_EXECUTIONS],
        success_ns=words[_SUCCESS_NS],
        fail_ns=words[_FAIL_NS],
        queue_ns=words[_QUEUE_NS],
        compute_ns=words[_COMPUTE_NS],
        inflight=max(0, words[_STARTED] - words[_FINISHED]),
        last_inference=words[_LAST],
        latency={
            upper_bound(at): words[_HISTOGRAM + at]
            for at in range(BUCKETS)
            if words[_HISTOGRAM + at]
        },
        fallbacks=words[_FALLBACKS],
        dropped=words[_DROPPED],
    )
