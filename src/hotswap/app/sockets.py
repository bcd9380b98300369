"""Listening sockets, bound once by the supervisor and inherited by who accepts on them."""

from __future__ import annotations

import errno
import socket

from hotswap.app import platform
from hotswap.errors import ConfigError

_BACKLOG = 2048


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise ConfigError(f"the address {host!r} cannot be resolved: {exc.strerror}") from None
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def _probe(family: socket.AddressFamily, address: tuple[str, int]) -> int:
    """Raise if someone listens there already; the port (a free one for 0).

    A second server with SO_REUSEPORT could otherwise share the port without a word.
    """
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
            sock.listen(1)
        except OSError as exc:
            raise ConfigError(_sentence(address, exc)) from None
        return int(sock.getsockname()[1])


def _sentence(address: tuple[str, int], exc: OSError) -> str:
    host, port = address
    if exc.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what listens there or choose another port"
    if exc.errno == errno.EACCES:
        return f"port {port} on {host} needs more rights: choose a port above 1023"
    return f"{host}:{port} cannot be listened on: {exc.strerror}"


def bind_slots(host: str, port: int, slots: int) -> tuple[list[socket.socket], tuple[str, int]]:
    """One SO_REUSEPORT socket a worker slot, and the address. Raises `ConfigError`, one line.

    Elsewhere than on Linux such sockets do not share connections out: there all slots have the
    same plain socket, and whoever wakes first accepts.
    """
    if not platform.LINUX:
        shared, bound = bind_one(host, port)
        return [shared] * slots, bound
    family, address = _resolve(host, port)
    port = _probe(family, address)
    sockets = []
    for _ in range(slots):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind((address[0], port))
        except OSError as exc:
            raise ConfigError(_sentence((address[0], port), exc)) from None
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        sockets.append(sock)
    return sockets, (address[0], port)


def bind_one(host: str, port: int) -> tuple[socket.socket, tuple[str, int]]:
    """One plain listening socket. Raises `ConfigError`, one line."""
    family, address = _resolve(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        raise ConfigError(_sentence(address, exc)) from None
    sock.setblocking(False)
    return sock, (address[0], int(sock.getsockname()[1]))
