"""A strict walk over an ONNX file's protobuf: is it one, and what other files does it name.

ONNX can keep tensors in other files, named by the model. A name that leaves the version's
folder would have the server read any file it can, so that every name is checked here before
the library sees the model. Only field numbers are read; nothing is executed or copied.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Final

from hotswap.errors import LoadError

_DEPTH: Final = 64

Span = tuple[int, int]
"""Where in the file something is: its first position, and the one after its last."""

# Message → field number → message of that field: the way from a ModelProto to every TensorProto.
_CHILDREN: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}


def check(path: Path, folder: Path) -> None:
    """Raise `LoadError` if the file is not a whole ONNX model, or names a file outside ``folder``."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            whole = (0, len(data))
            locations = set(_locations(data, whole, "model", 0))
            has_graph = any(number == 7 for number, _, _ in _fields(data, whole))
    except (_Malformed, ValueError, OSError) as error:
        raise LoadError(f"{path.name} is not a whole ONNX file ({error})") from None
    if not has_graph:
        raise LoadError(f"{path.name} is not an ONNX model: it has no graph")
    for location in sorted(locations):
        _check_location(location, path, folder)


class _Malformed(Exception):
    """The bytes are not a protobuf message."""


def _check_location(location: bytes, path: Path, folder: Path) -> None:
    try:
        name = location.decode("utf-8")
    except UnicodeDecodeError:
        raise LoadError(f"{path.name} names external data in a way that cannot be read") from None
    parts = name.split("/")
    if (
        not name
        or name.startswith("/")
        or "\\" in name
        or "\0" in name
        or ".." in parts
        or PureWindowsPath(name).drive
    ):
        raise LoadError(
            f"{path.name} names external data outside the version's folder ({name!r}): refused; "
            "save the model with its data beside it, or in one file"
        )
    data = path.parent / name
    if not data.is_file():
        raise LoadError(f"{path.name} names external data {name!r}, which is not there")
    if data.is_symlink() or not data.resolve().is_relative_to(folder.resolve()):
        raise LoadError(
            f"{path.name} names external data {name!r}, which leads outside the version's folder"
        )


def _locations(data: mmap.mmap, span: Span, message: str, depth: int) -> Iterator[bytes]:
    if depth > _DEPTH:
        raise _Malformed("it is nested too deep")
    children = _CHILDREN[message]
    for number, wire, inner in _fields(data, span):
        child = children.get(number)
        if child is None:
            continue
        if wire != 2:
            raise _Malformed("a field has the wrong type")
        if child == "entry":
            yield from _location(data, inner)
        else:
            yield from _locations(data, inner, child, depth + 1)


def _location(data: mmap.mmap, span: Span) -> Iterator[bytes]:
    """The value of a key-value entry, if its key is ``location``."""
    pair = {number: data[slice(*inner)] for number, wire, inner in _fields(data, span) if wire == 2}
    if pair.get(1) == b"location":
        yield pair.get(2, b"")


def _fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, int, Span]]:
    """(field number, wire type, where its content is) for each field of one message."""
    at, end = span
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise _Malformed("a field has no number")
        if wire == 0:
            start = at
            _, at = _varint(data, at, end)
            yield number, wire, (start, at)
            continue
        if wire == 2:
            size, at = _varint(data, at, end)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _Malformed("a field has an unknown type")
        if at + size > end:
            raise _Malformed("it ends early")
        yield number, wire, (at, at + size)
        at += size


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end or shift > 63:
            raise _Malformed("it ends early")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
