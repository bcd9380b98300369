"""What passes between a transport (our protocol, or any ASGI server) and the data plane."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable
from typing import Final

from hotswap.errors import BadInput
from hotswap.ports import Lease

#: The only request headers that the data plane reads; a transport may drop all others.
READ_HEADERS: Final = frozenset(
    {
        b"accept-encoding",
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"inference-header-content-length",
        b"x-hotswap-key",
        b"x-hotswap-model",
        b"x-hotswap-timeout-ms",
        b"x-request-id",
    }
)

Headers = tuple[tuple[bytes, bytes], ...]

JSON_TYPE: Final = (b"content-type", b"application/json")


class Request:
    """One whole HTTP request.

    ``path`` is percent-decoded once, without a mount's root path. ``headers`` holds those of
    `READ_HEADERS` that came, by lower-case name. ``arrived`` is when its first byte came, on
    the monotonic clock, seconds. ``id`` is the request's id once it is known, and ``lease`` what
    answers it: an error names both.
    """

    __slots__ = ("arrived", "body", "headers", "id", "lease", "method", "path")

    def __init__(
        self, method: str, path: str, headers: dict[bytes, bytes], body: bytes, arrived: float
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.arrived = arrived
        self.id = ""
        self.lease: Lease | None = None


class Answer:
    """One whole HTTP response. ``headers`` leave out Content-Length: the transport adds it."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


def collect(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers that are read, by lower-case name. The first of a repeated one counts, but
    encodings add up: hiding a second one behind the first would skip its refusal."""
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        keep_header(headers, name.lower(), value)
    return headers


def keep_header(headers: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    """Add one header (``name`` in lower case) to those that are read, if it is one of them."""
    if name not in READ_HEADERS:
        return
    if name not in headers:
        headers[name] = value
    elif name == b"content-encoding" or name == b"accept-encoding":
        headers[name] += b"," + value
    elif headers[name] != value:
        raise BadInput(f"The header {name.decode('ascii')!r} was sent twice with different values.")


class RequestIds:
    """Makes request ids that are unique across processes: a random prefix and a counter."""

    __slots__ = ("_next", "_prefix")

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6) + "-"
        self._next = itertools.count(1).__next__

    def __call__(self) -> str:
        return f"{self._prefix}{self._next():x}"


_PRINTABLE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")


def valid_id(value: bytes) -> bool:
    """Whether a request id can be sent back in a header: printable ASCII, 128 bytes at most.

    >>> valid_id(b"a-1"), valid_id(b"a\\x00"), valid_id(b"x" * 129)
    (True, False, False)
    """
    return _PRINTABLE.fullmatch(value) is not None
