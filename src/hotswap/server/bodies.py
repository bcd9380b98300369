"""Request and response bodies as bytes: compression with limits, and JSON's depth."""

from __future__ import annotations

import re
import zlib
from typing import Final

import msgspec
import numpy as np

from hotswap.core.spec import Limits
from hotswap.errors import BadInput, TooLarge, UnsupportedMedia

#: Answers below this many bytes are not worth compressing.
COMPRESS_FROM: Final = 1024

#: A body this small may expand freely: repeated zeros compress 1000-fold in good faith.
_FREE_EXPANSION: Final = 1024 * 1024

_GZIP: Final = 16 + zlib.MAX_WBITS
_SLICE: Final = 1 << 20
_FED: Final = 1 << 16
#: A gzip body may be several streams; each costs time however little it holds.
_STREAMS: Final = 10_000

# Every quote starts a match, even an unterminated one: the scan stays linear.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def decompress(body: bytes, encoding: bytes, limits: Limits) -> bytes:
    """``body`` as its Content-Encoding says it was before.

    Raises `UnsupportedMedia` for other codings than gzip and deflate and for nested ones,
    `TooLarge` past the limits of size and ratio, `BadInput` if the data is damaged.
    """
    coding = encoding.strip().lower()
    if coding in (b"", b"identity"):
        return body
    if b"," in coding:
        raise UnsupportedMedia("Nested content encodings are not accepted: send gzip or deflate.")
    allowed = min(
        limits.decompressed_bytes, max(_FREE_EXPANSION, len(body) * limits.decompressed_ratio)
    )
    if coding in (b"gzip", b"x-gzip"):
        return _inflate(body, _GZIP, allowed)
    if coding == b"deflate":
        # RFC 9110 means zlib's format; some clients send the bare stream.
        zlib_format = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] * 256 + body[1]) % 31 == 0
        return _inflate(body, zlib.MAX_WBITS if zlib_format else -zlib.MAX_WBITS, allowed)
    shown = coding.decode("ascii", "replace")[:40]
    raise UnsupportedMedia(f"Content-Encoding {shown!r} is not supported: send gzip or deflate.")


def _inflate(body: bytes, wbits: int, allowed: int) -> bytes:
    parts: list[bytes] = []
    total = at = 0
    view = memoryview(body)
    for _ in range(_STREAMS):
        stream = zlib.decompressobj(wbits)
        before = total
        while not stream.eof:
            # In pieces: what a stream leaves unused is copied, for each of its successors.
            piece = view[at : at + _FED]
            if not piece:
                raise BadInput("The compressed body ends too early.")
            try:
                part = stream.decompress(piece, allowed - total + 1)
            except zlib.error:
                raise BadInput("The compressed body is damaged.") from None
            total += len(part)
            if total > allowed:
                raise TooLarge(f"The body is larger than {allowed} bytes when decompressed.")
            parts.append(part)
            at += len(piece) - len(stream.unused_data)
        if at == len(body):
            return b"".join(parts)
        if wbits != _GZIP or total == before:
            raise BadInput("The compressed body is followed by other data.")
    raise BadInput(f"The compressed body is more than {_STREAMS} streams: send it as one.")


def compress(body: bytes, accept: bytes) -> tuple[bytes, bytes] | None:
    """``(coding, compressed body)`` by what the client accepts, or None to send it as it is."""
    offered: dict[bytes, float] = {}
    for item in accept.lower().split(b",")[:20]:
        name, _, parameter = item.partition(b";")
        quality = 1.0
        if parameter:
            key, _, value = parameter.partition(b"=")
            try:
                quality = float(value) if key.strip() == b"q" else 1.0
            except ValueError:
                quality = 0.0
        offered[name.strip()] = quality
    anything = offered.get(b"*", 0.0)
    gzip = offered.get(b"gzip", anything)
    deflate = offered.get(b"deflate", anything)
    if gzip <= 0 and deflate <= 0:
        return None
    if gzip >= deflate:
        stream = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        return b"gzip", stream.compress(body) + stream.flush()
    return b"deflate", zlib.compress(body, 1)


def check_json(body: bytes, limits: Limits) -> None:
    """Raise `TooLarge` for more JSON than is accepted, `BadInput` for JSON nested too deep."""
    if len(body) > limits.json_bytes:
        raise TooLarge(
            f"The JSON is larger than {limits.json_bytes} bytes: send raw (binary) tensors, or "
            "several requests."
        )
    check_depth(body, limits.json_depth)


def check_depth(body: bytes, limit: int) -> None:
    """Raise `BadInput` if JSON in ``body`` nests deeper than ``limit``; decodes nothing.

    >>> check_depth(b"[" * 100, 64)
    Traceback (most recent call last):
    ...
    hotswap.errors.BadInput: The JSON is nested deeper than 64 levels.
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return
    bare = np.frombuffer(_STRINGS.sub(b"", body), dtype=np.uint8)
    depth = 0
    for start in range(0, bare.size, _SLICE):
        part = bare[start : start + _SLICE]
        # "[" 0x5b and "{" 0x7b, "]" 0x5d and "}" 0x7d: they differ in bit 5 alone.
        folded = part | 0x20
        steps = (folded == 0x7B).astype(np.int32) - (folded == 0x7D).astype(np.int32)
        running = steps.cumsum() + depth
        if int(running.max()) > limit:
            raise BadInput(f"The JSON is nested deeper than {limit} levels.")
        depth = int(running[-1])


def decode_json(body: bytes, limits: Limits) -> object:
    """Any JSON, as Python objects. Raises `BadInput` with the place of the error."""
    check_json(body, limits)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as exc:
        raise BadInput(f"The body is not valid JSON: {_reason(exc)}.") from None


def _reason(exc: Exception) -> str:
    if isinstance(exc, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(exc, msgspec.DecodeError):
        return str(exc).removeprefix("JSON is malformed: ").rstrip(".")
    return "it nests too deep or holds a number that is too long"
