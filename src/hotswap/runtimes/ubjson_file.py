"""A strict walk over a UBJSON file: is it whole.

XGBoost reads past the end of a file that ends early and takes the process with it, so that the
structure is checked before. Nothing is built; typed arrays are stepped over at once.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

_SIZES: Final = {
    ord(marker): size
    for marker, size in zip("ZNTFiUCIlLdD", (0, 0, 0, 0, 1, 1, 1, 2, 4, 8, 4, 8), strict=True)
}
_SIGNED: Final = {ord("i"), ord("I"), ord("l"), ord("L")}
_LENGTHS: Final = frozenset(map(ord, "iUIlL"))
_OBJECT, _END_OBJECT, _ARRAY, _END_ARRAY = b"{}[]"
_TYPE, _COUNT, _STRING, _HIGH = b"$#SH"
_DEPTH: Final = 64


class Malformed(Exception):
    """The bytes are not one whole UBJSON value."""


def check(path: Path) -> None:
    """Raise `Malformed`, in a few words, if the file is not exactly one UBJSON value."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            end = _Walk(data).value(0, 0)
            if end != len(data):
                raise Malformed("something follows its end")
    except (IndexError, ValueError):
        raise Malformed("it ends early") from None


class _Walk:
    """Steps over values; each method takes a position and returns the one after the value."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._end = len(data)

    def value(self, at: int, depth: int) -> int:
        return self._content(self._data[at], at + 1, depth)

    def _content(self, marker: int, at: int, depth: int) -> int:
        if depth > _DEPTH:
            raise Malformed("it is nested too deep")
        size = _SIZES.get(marker)
        if size is not None:
            return self._step(at, size)
        if marker in (_STRING, _HIGH):
            length, at = self._length(at)
            return self._step(at, length)
        if marker == _ARRAY:
            return self._container(at, depth, _END_ARRAY)
        if marker == _OBJECT:
            return self._container(at, depth, _END_OBJECT)
        raise Malformed("a value has an unknown type")

    def _container(self, at: int, depth: int, closing: int) -> int:
        kind = count = None
        if self._data[at] == _TYPE:
            kind, at = self._data[at + 1], at + 2
            if self._data[at] != _COUNT:
                raise Malformed("a typed container has no count")
        if self._data[at] == _COUNT:
            count, at = self._length(at + 1)
        if closing == _END_ARRAY and kind in _SIZES and count is not None:
            return self._step(at, _SIZES[kind] * count)
        while count is None or count > 0:
            if count is None and self._data[at] == closing:
                return at + 1
            if closing == _END_OBJECT:
                length, at = self._length(at)
                at = self._step(at, length)
            at = self.value(at, depth + 1) if kind is None else self._content(kind, at, depth + 1)
            if count is not None:
                count -= 1
        return at

    def _length(self, at: int) -> tuple[int, int]:
        marker = self._data[at]
        if marker not in _LENGTHS:
            raise Malformed("a length is no integer")
        end = self._step(at + 1, _SIZES[marker])
        length = int.from_bytes(self._data[at + 1 : end], "big", signed=marker in _SIGNED)
        if length < 0:
            raise Malformed("a length is negative")
        return length, end

    def _step(self, at: int, size: int) -> int:
        if at + size > self._end:
            raise Malformed("it ends early")
        return at + size
