"""The control plane's doorkeeper: plain ASGI, in front of every route.

In this order, for every method, known or not: (1) Host, against DNS rebinding; (2) Origin and
Sec-Fetch-Site, against other sites' pages; (3) method overrides, which nothing here honours;
(4) the token; (5) the body: its encoding, type, size and the time it takes to arrive.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any, Final

from hotswap.errors import (
    BadInput,
    Forbidden,
    HotswapError,
    ReceiveTimeout,
    TooLarge,
    Unauthorized,
    UnsupportedMedia,
    WrongHost,
)
from hotswap.server.errors import translate

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MAX_BODY: Final = 1024 * 1024
#: Without the token. The webhook has a signature of its own, checked where its secret is known.
OPEN_ROUTES: Final = frozenset({"/healthz", "/readyz", "/api/v1/registry/webhook"})
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS: Final = frozenset({"0.0.0.0", "::"})

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?")
_OVERRIDES = (b"x-http-method-override", b"x-http-method", b"x-method-override")
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")

SECURITY_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """ASGI middleware that lets through what may reach the control API.

    ``allowed_hosts`` are the names and addresses, beside loopback, that a Host header may
    carry; ``0.0.0.0`` or ``::`` among them allows any *address* (which no other site can make a
    browser send), ``*`` anything. ``token`` None: no token is asked for. ``receive_seconds``:
    most time until a body has arrived.
    """

    def __init__(
        self,
        app: App,
        *,
        token: str | None = None,
        allowed_hosts: Iterable[str] = (),
        max_body: int = MAX_BODY,
        receive_seconds: float = 30.0,
    ) -> None:
        self.app = app
        self.token = None if token is None else token.encode()
        self.hosts = LOOPBACK_NAMES | {host.lower().strip("[]") for host in allowed_hosts}
        self.max_body = max_body
        self.receive_seconds = receive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer for the app, or let it answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        guarded = _with_headers(send, request_id)
        try:
            self.check(scope)
            body = await self._body(scope, receive)
        except HotswapError as error:
            status, extra, content = translate(error, request_id.decode())
            if isinstance(error, Unauthorized):
                extra = ((b"www-authenticate", _challenge(scope["headers"])),)
            await _answer(guarded, status, [*extra], content)
            return
        if body is None:  # the client left while it was sending
            return
        await self.app(scope, _replay(body, receive), guarded)

    def check(self, scope: Scope) -> None:
        """Rules 1 to 4. Raises `BadInput`, `WrongHost`, `Forbidden` or `Unauthorized`."""
        headers: Headers = scope["headers"]
        netloc = self._host(_values(headers, b"host"))
        _refuse_other_sites(headers, netloc)
        for name in _OVERRIDES:
            if _values(headers, name):
                raise BadInput(f"{name.decode()} is not honoured here: send the method itself")
        if self.token is not None and scope["path"] not in OPEN_ROUTES:
            self._authorize(_values(headers, b"authorization"))

    def _host(self, values: list[bytes]) -> tuple[str, str]:
        """(host, port) of the one Host header, if it is one that is answered for."""
        if len(values) != 1:
            raise BadInput("a request needs exactly one Host header")
        host, port = _split_host(values[0].decode("latin-1"))
        if host in self.hosts or "*" in self.hosts:
            return host, port
        if self.hosts & WILDCARDS and _is_address(host):
            return host, port
        raise WrongHost(
            f"this server does not answer for the host '{host}': add it to allowed_hosts "
            "(--allowed-hosts), or use the server's address"
        )

    def _authorize(self, values: list[bytes]) -> None:
        assert self.token is not None
        given = b""
        if len(values) == 1:
            scheme, _, credentials = values[0].partition(b" ")
            if scheme.lower() == b"bearer":
                given = credentials.strip()
            elif scheme.lower() == b"basic":
                given = _password(credentials.strip())
        if not hmac.compare_digest(given, self.token):
            raise Unauthorized

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body, at most ``max_body`` bytes; None if the client has left."""
        headers: Headers = scope["headers"]
        length = _values(headers, b"content-length")
        if length and length[0].isdigit() and int(length[0]) > self.max_body:
            raise self._too_large()
        try:
            async with asyncio.timeout(self.receive_seconds):
                body = await self._collect(receive)
        except TimeoutError:
            raise ReceiveTimeout from None
        if body:
            _check_type(headers)
            if not _values(headers, b"content-type"):
                scope["headers"] = [*headers, (b"content-type", b"application/json")]
        return body

    async def _collect(self, receive: Receive) -> bytes | None:
        parts = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts += message.get("body", b"")
            if len(parts) > self.max_body:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(parts)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the body is larger than the {self.max_body} bytes that this API accepts; artifacts "
            "are not sent here: give the uri of one that the server can read"
        )


def _refuse_other_sites(headers: Headers, host: tuple[str, str]) -> None:
    """Refuse what a browser sends for a page of another site.

    The scheme is not compared: behind a proxy that ends TLS it differs rightfully.
    """
    other = Forbidden("this request comes from another site's page, and only this server's may")
    for value in _values(headers, b"sec-fetch-site"):
        if value not in (b"same-origin", b"none"):
            raise other
    for value in _values(headers, b"origin"):
        scheme, separator, netloc = value.decode("latin-1").partition("://")
        if not separator:  # "null": a sandboxed page, a file, a redirect
            raise other
        try:
            origin, port = _split_host(netloc)
        except BadInput:
            raise other from None
        default = {"http": "80", "https": "443"}.get(scheme, "")
        if (origin, port or default) != (host[0], host[1] or default):
            raise other


def _check_type(headers: Headers) -> None:
    encoding = b",".join(_values(headers, b"content-encoding")).strip().lower()
    if encoding not in (b"", b"identity"):
        raise UnsupportedMedia("this API takes bodies without a Content-Encoding")
    for value in _values(headers, b"content-type"):
        kind, _, parameters = value.decode("latin-1").lower().partition(";")
        charset = parameters.replace(" ", "").replace('"', "")
        if kind.strip() != "application/json" or charset not in ("", "charset=utf-8"):
            raise UnsupportedMedia("this API takes JSON: send Content-Type: application/json")


def _split_host(text: str) -> tuple[str, str]:
    match = _HOST.fullmatch(text)
    if match is None:
        raise BadInput("the Host header is not a host name with an optional port")
    return (match[1] or match[2]).lower().rstrip("."), match[3] or ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _challenge(headers: Headers) -> bytes:
    """Browsers are asked for a password, which is the token; clients for the token."""
    if any(b"text/html" in value for value in _values(headers, b"accept")):
        return b'Basic realm="hotswap: the token is the password", charset="UTF-8"'
    return b'Bearer realm="hotswap"'


def _request_id(headers: Headers) -> bytes:
    given = _values(headers, b"x-request-id")
    if given and _REQUEST_ID.fullmatch(given[0]):
        return given[0]
    return secrets.token_hex(16).encode()


def _with_headers(send: Send, request_id: bytes) -> Send:
    """Add the security headers that the answer does not have itself, and the request's id."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers += [pair for pair in SECURITY_HEADERS if pair[0] not in present]
            headers.append((b"x-request-id", request_id))
            message["headers"] = headers
        await send(message)

    return guarded


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the collected body first, then what comes after it."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    fixed: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    # The rest of an unread body must not be taken for the next request.
    closing: Headers = [(b"connection", b"close")] if status in (408, 413) else []
    await send(
        {"type": "http.response.start", "status": status, "headers": fixed + headers + closing}
    )
    await send({"type": "http.response.body", "body": body})
