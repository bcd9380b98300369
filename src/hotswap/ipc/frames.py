"""The frames between workers and hosts: many requests a write, tensors as raw bytes.

A frame is ``u32 length of the rest, u32 length of the header, header (msgpack), payload``,
little-endian. The header is one of `Call`, `Cancel`, `Answer`, `Failure`, `Hello`. The payload
of a call holds, input by input, the raw tensors of all its requests one after another, so that
joining requests into a batch is joining bytes. ``BYTES`` elements are ``u32 length + bytes``,
as in the protocol's binary extension. There is no pickle on this or any other wire.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from hotswap.core.datatypes import NUMPY_OF

Array = np.ndarray[Any, np.dtype[Any]]

_PREFIX: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<I")

#: Nothing on these sockets is larger; a larger length means that the peer is broken.
MAX_FRAME: Final = 1 << 31


class Layout(msgspec.Struct, frozen=True, array_like=True):
    """One tensor without its batch dimension: name, protocol datatype, trailing shape."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The host's first frame on a connection: which process answers here."""

    host: str
    incarnation: int


class Call(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Requests of equal layout. ``sizes`` are payload bytes an input; deadlines are monotonic seconds.

    ``token`` is not 0 for one request that is sent alone, after a host died with it. ``shadow``:
    nobody is waiting for the answers; they are only compared.
    """

    layout: tuple[Layout, ...]
    outputs: tuple[str, ...]
    ids: list[int]
    rows: list[int]
    deadlines: list[float]
    sizes: list[int]
    token: int = 0
    shadow: bool = False


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Nobody waits for these any more: drop them if they have not begun."""

    ids: list[int]


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Outputs of requests that ran together, in the order of ``ids``.

    ``queue_ns`` is the wait of the oldest, ``compute_ns`` the one call's time.
    """

    ids: list[int]
    rows: list[int]
    layout: tuple[Layout, ...]
    sizes: list[int]
    queue_ns: int
    compute_ns: int


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Requests that have no output. ``kind``: model, invalid_output, timeout, memory.

    ``message`` may be shown to clients; ``detail`` (the traceback) is for the log alone.
    """

    ids: list[int]
    kind: str
    message: str
    detail: str = ""


Header = Hello | Call | Cancel | Answer | Failure

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Header).decode


def pack(header: Header, *payload: bytes | memoryview) -> bytes:
    """One frame as bytes."""
    head = _encode(header)
    size = 4 + len(head)
    for part in payload:
        size += len(part)
    return b"".join((_PREFIX.pack(size, len(head)), head, *payload))


class FrameReader:
    """Cuts a byte stream into frames.

    >>> reader = FrameReader()
    >>> frame = pack(Cancel([1, 2]))
    >>> list(reader.feed(frame[:5])), [header for header, _ in reader.feed(frame[5:])]
    ([], [Cancel(ids=[1, 2])])
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 8

    def feed(self, data: bytes) -> Iterator[tuple[Header, memoryview]]:
        """The frames that are complete now. Raises ValueError if the stream is not ours."""
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return
        buffer = memoryview(b"".join(self._parts) if len(self._parts) > 1 else data)
        at = 0
        total = len(buffer)
        self._need = 8
        while total - at >= 8:
            size, head = _PREFIX.unpack_from(buffer, at)
            if size > MAX_FRAME or head + 4 > size:
                raise ValueError("a frame's length is out of range")
            end = at + 4 + size
            if end > total:
                self._need = end - at
                break
            start = at + 8
            yield _decode(buffer[start : start + head]), buffer[start + head : end]
            at = end
        rest = bytes(buffer[at:])
        self._parts = [rest] if rest else []
        self._have = len(rest)


def encode_bytes(array: Array) -> bytes:
    """An object array of `bytes` (or `str`) as the binary extension has it."""
    parts: list[bytes] = []
    for element in array.ravel():
        raw = element if isinstance(element, bytes) else str(element).encode()
        parts.append(_LENGTH.pack(len(raw)))
        parts.append(raw)
    return b"".join(parts)


def decode_bytes(raw: memoryview | bytes, count: int | None = None) -> Array:
    """The inverse: a 1-d object array of `bytes`. Raises ValueError if it does not fit."""
    out: list[bytes] = []
    at, total = 0, len(raw)
    while at < total:
        if at + 4 > total:
            raise ValueError("a BYTES tensor ends within a length")
        (size,) = _LENGTH.unpack_from(raw, at)
        at += 4
        if at + size > total:
            raise ValueError("a BYTES tensor ends within an element")
        out.append(bytes(raw[at : at + size]))
        at += size
    if count is not None and len(out) != count:
        raise ValueError(f"a BYTES tensor has {len(out)} elements where {count} were declared")
    array = np.empty(len(out), dtype=object)
    array[:] = out
    return array


def encode_tensor(array: Array, datatype: str) -> bytes:
    """Raw little-endian bytes of one tensor."""
    if datatype == "BYTES":
        return encode_bytes(array)
    return array.astype(NUMPY_OF[datatype], copy=False).tobytes()


def decode_tensor(raw: memoryview | bytes, layout: Layout, rows: int) -> Array:
    """The tensor of ``rows`` rows; a view of ``raw`` except for ``BYTES``."""
    shape = (rows, *layout.shape)
    if layout.datatype == "BYTES":
        return decode_bytes(raw).reshape(shape)
    return np.frombuffer(raw, dtype=NUMPY_OF[layout.datatype]).reshape(shape)
