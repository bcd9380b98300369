"""Listening sockets: one a slot on one port, and a clear word where that cannot be."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from hotswap.app.sockets import _sentence, bind_one, bind_slots
from hotswap.errors import ConfigError


def test_every_slot_listens_on_the_same_port() -> None:
    """Port 0 is one free port for all of them; connections reach them."""
    sockets, (host, port) = bind_slots("127.0.0.1", 0, 3)
    try:
        assert host == "127.0.0.1"
        assert {sock.getsockname()[1] for sock in sockets} == {port}
        clients = [socket.create_connection((host, port), timeout=5) for _ in range(20)]
        accepted = 0
        for sock in sockets:
            assert sock.getblocking() is False
            while True:
                try:
                    connection, _ = sock.accept()
                except BlockingIOError:
                    break
                connection.close()
                accepted += 1
        assert accepted == 20
        for client in clients:
            client.close()
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize(
    "bind", [lambda port: bind_slots("127.0.0.1", port, 2), lambda port: bind_one("127.0.0.1", port)],
    ids=["slots", "one"],
)  # fmt: skip
def test_a_port_in_use_is_refused(bind: Callable[[int], object], reuse: bool) -> None:
    """Even one that another server would share: two servers must not split the traffic."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse))
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use"):
            bind(port)


@pytest.mark.parametrize(
    ("host", "reason"),
    [("no.such.host.invalid", "cannot be resolved"), ("192.0.2.1", "cannot be listened on")],
)
def test_an_address_that_is_not_ours_is_refused(host: str, reason: str) -> None:
    """One sentence that names the address."""
    with pytest.raises(ConfigError, match=reason) as caught:
        bind_one(host, 0)
    assert host in str(caught.value)
    with pytest.raises(ConfigError, match=reason):
        bind_slots(host, 0, 2)


def test_a_port_below_1024_needs_rights() -> None:
    """And the sentence says what to choose (root may bind any, so the refusal is made here)."""
    refusal = PermissionError(errno.EACCES, "Permission denied")
    assert _sentence(("127.0.0.1", 80), refusal) == (
        "port 80 on 127.0.0.1 needs more rights: choose a port above 1023"
    )


def test_the_control_socket_tells_its_port() -> None:
    """A free port is found for 0, and can be connected to."""
    sock, (host, port) = bind_one("localhost", 0)
    with sock, socket.create_connection((host, port), timeout=5):
        connection, _ = sock.accept()
        connection.close()
        assert port == sock.getsockname()[1] != 0


def test_ipv6_is_an_address_too() -> None:
    """Where there is IPv6; elsewhere a sentence says that it is not."""
    try:
        sockets, (host, port) = bind_slots("::1", 0, 2)
    except ConfigError as refused:
        assert not socket.has_ipv6 or "::1" in str(refused)  # noqa: PT017
        return
    assert host == "::1"
    with socket.create_connection(("::1", port), timeout=5):
        pass
    for sock in sockets:
        sock.close()
