"""Hostile input over real sockets: refused with the right status, and nothing is harmed."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import processes
from tests.e2e.harness import Response, Server, wait_until
from tests.e2e.load import Load
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits and a short receipt deadline."""
    root = tmp_path_factory.mktemp("bad-inputs")
    write_trick(root / "models", "m", "v1")
    write_trick(root / "models", "m", "v2")
    flags = (
        "--limit-receive-timeout=2",
        "--limit-body-bytes=100000",
        "--limit-decompressed-bytes=2000000",
        "--limit-connections=400",
    )
    with Server(root / "models", root / "state", *flags, workers=2) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_harmed(server: Server) -> Iterator[None]:
    """After each test the same processes run and the model answers."""
    before = server.worker_pids() + server.control_pids()
    yield
    assert server.predict("m").status == 200
    assert server.worker_pids() + server.control_pids() == before


def raw(port: int, data: bytes, *, seconds: float = 20, end: bool = True) -> bytes:
    """What a listener sends back before it closes or falls silent; ``end``: we send no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as client:
        try:
            client.sendall(data)
            if end:
                client.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        while True:
            try:
                part = client.recv(65536)
            except (ConnectionResetError, TimeoutError):
                return answer
            if not part:
                return answer
            answer += part


def status_of(answer: bytes) -> int:
    """The status of a raw answer whose body is an error in JSON."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), answer[:100]
    assert set(json.loads(body)) == {"error"}
    return int(head.split(b" ", 2)[1])


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.marker,))


@pytest.mark.parametrize("port", ["data_port", "control_port"])
@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-pickle",
        "application/octet-stream",
        "application/python-pickle",
        None,
        "text/plain",
    ],
)
def test_pickles_are_never_read(
    server: Server, tmp_path: Path, port: str, content_type: str | None
) -> None:
    """A pickle on any listener, under any content type, with headers dropped or altered, is refused."""
    marker = tmp_path / "canary"
    body = pickle.dumps(Canary(str(marker)))
    paths = {
        "data_port": ("/predict", "/invocations", "/v2/models/m/infer", "/v2/repository/index"),
        "control_port": ("/api/v1/models/m/switch", "/api/v1/models/m/versions"),
    }[port]
    for path in paths:
        for more in ({}, {"inference-header-content-length": "0"}, {"x-pickle": "1"}):
            headers = dict(more) | ({"content-type": content_type} if content_type else {})
            answer = server.ask(getattr(server, port), "POST", path, body, headers)
            assert answer.status in (400, 415), (path, answer)
            if content_type == "application/x-pickle":
                assert answer.status == 415, (path, answer)
            assert answer.error
    assert not marker.exists()


def test_internal_sockets_are_private(server: Server) -> None:
    """Nobody else may reach the sockets between the processes, and what is not our wire is dropped."""
    (folder,) = {
        part.partition("=")[2]
        for pid in server.nursery_pids()
        for part in processes.command(pid)
        if part.startswith("--runtime-dir=")
    }
    assert Path(folder).stat().st_mode & 0o077 == 0
    addresses = [path for path in Path(folder).iterdir() if path.is_socket()]
    assert addresses
    with Load(server.data_port, "m", 4) as load:
        for address in addresses:
            for junk in (
                b"\xff" * 64,
                b"\0" * 4096,
                pickle.dumps({"a": 1}),
                b"\x04\0\0\0\x01\x02\x03\x04" * 8,
            ):
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(2)
                    client.connect(str(address))
                    client.sendall(junk)
        load.wait(50)
    load.expect_no_failure()
    listening = {
        line.split()[1].split(":")[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and int(line.split()[9]) in _inodes(server)
    }
    assert listening == {f"{server.data_port:04X}", f"{server.control_port:04X}"}


def _inodes(server: Server) -> set[int]:
    server.note()
    return set().union(*(processes.inodes(pid) for pid in [server.pid, *server.seen]))


@pytest.mark.parametrize("where", ["line", "headers", "body"])
def test_a_byte_now_and_then(server: Server, where: str) -> None:
    """One byte at a time does not hold a socket: the receipt deadline is absolute."""
    start = {
        "line": b"POST /pre",
        "headers": b"POST /predict HTTP/1.1\r\nhost: x\r\nx-a: ",
        "body": b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 1000\r\n\r\n[",
    }[where]
    with socket.create_connection(("127.0.0.1", server.data_port), timeout=0.1) as client:
        client.sendall(start)
        began = time.monotonic()
        answer = b""
        while time.monotonic() - began < 30:
            try:
                client.sendall(b"1")
            except OSError:
                break
            try:
                part = client.recv(65536)
                if not part:
                    break
                answer += part
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
        assert time.monotonic() - began < 30, "the connection was held"
    assert status_of(answer) == 408


def test_many_slow_senders(server: Server) -> None:
    """Sockets that never finish a request keep nobody else from being answered."""
    slow = [socket.create_connection(("127.0.0.1", server.data_port)) for _ in range(200)]
    try:
        for client in slow:
            client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-le")
        with Load(server.data_port, "m", 4) as load:
            load.wait(50)
        load.expect_no_failure()
        for client in slow:
            client.settimeout(20)
            assert client.recv(65536).startswith(b"HTTP/1.1 408 ")
    finally:
        for client in slow:
            client.close()


def predict(headers: bytes, body: bytes) -> bytes:
    """A raw request with these header lines."""
    return (
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        + headers
        + b"\r\n"
        + body
    )


GOOD = b'{"features": [1, 2], "model": "m"}'


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("declared too large", predict(b"content-length: 100001\r\n", b""), 413),
        ("huge length", predict(b"content-length: 99999999999999999999\r\n", b""), 400),
        ("sent too large", predict(b"transfer-encoding: chunked\r\n", b"1000\r\n" + b" " * 4096 + b"\r\n" + (b"1000\r\n" + b" " * 4096 + b"\r\n") * 30), 413),
        ("two ways of length", predict(b"content-length: 34\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"), 400),
        ("two lengths", predict(b"content-length: 34\r\ncontent-length: 35\r\n", GOOD), 400),
        ("bad chunk", predict(b"transfer-encoding: chunked\r\n", b"zz\r\n\r\n"), 400),
        ("bare line feed in chunk", predict(b"transfer-encoding: chunked\r\n", b"22\n" + GOOD + b"\n0\n\n"), 400),
        ("negative length", predict(b"content-length: -1\r\n", b""), 400),
        ("many headers", predict(b"".join(b"x-%d: 1\r\n" % n for n in range(10_000)), b""), 431),
        ("large header", predict(b"x-a: " + b"a" * 100_000 + b"\r\n", b""), 431),
        ("long path", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
        ("no host", b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        ("two hosts", b"GET /v2 HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("odd host", b"GET /v2 HTTP/1.1\r\nhost: a/b?x\r\n\r\n", 400),
        ("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ("NUL in a header", predict(b"x-a: a\0b\r\n", b""), 400),
        ("space before the colon", predict(b"x-a : b\r\n", b""), 400),
        ("folded header", predict(b"x-a: b\r\n c\r\n", b""), 400),
    ],
)  # fmt: skip
def test_malformed_requests(server: Server, name: str, data: bytes, status: int) -> None:
    """Each is refused with its status and a sentence, on a connection that is then closed."""
    answer = raw(server.data_port, data)
    if name == "huge length":
        assert status_of(answer) in (400, 413)
    else:
        assert status_of(answer) == status
    assert b"connection: close" in answer.partition(b"\r\n\r\n")[0].lower()


def test_nothing_follows_a_refused_request(server: Server) -> None:
    """A request smuggled behind a refused one is not answered."""
    smuggled = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    both = predict(b"content-length: 4\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n" + smuggled)
    assert raw(server.data_port, both).lower().count(b"content-length:") == 1


def test_tiny_chunks(server: Server) -> None:
    """A body in 20,000 chunks of a byte is read, or refused, without harm."""
    padded = GOOD.ljust(20_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in padded) + b"0\r\n\r\n"
    data = predict(b"transfer-encoding: chunked\r\nconnection: close\r\n", chunks)
    answer = raw(server.data_port, data, end=False)
    assert answer.startswith(b"HTTP/1.1 200 ")


def post(server: Server, body: bytes, **headers: str) -> Response:
    """POST to ``/predict``."""
    sent = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return server.data("POST", "/predict", body, headers=sent)


def test_compressed_bodies(server: Server) -> None:
    """Bombs stop at the limits of size and ratio; odd and nested encodings are refused."""
    assert post(server, gzip.compress(GOOD), content_encoding="gzip").status == 200
    bomb = gzip.compress(b" " * 50_000_000 + GOOD)
    assert len(bomb) < 100_000
    assert post(server, bomb, content_encoding="gzip").status == 413
    assert post(server, gzip.compress(b" " * 1_900_000), content_encoding="gzip").status == 413
    twice = gzip.compress(gzip.compress(GOOD))
    assert post(server, twice, content_encoding="gzip, gzip").status == 415
    assert post(server, GOOD, content_encoding="br").status == 415
    assert post(server, GOOD, content_encoding="gzip").status == 400
    assert post(server, gzip.compress(GOOD)[:-5], content_encoding="gzip").status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"features": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"a":' * 20_000,
        b'{"features": [' + b"9" * 90_000 + b"]}",
        b'{"features": [1e999999], "model": "m"}',
        b'{"features": [NaN, 1], "model": "m"}',
        b'{"features": [1, 2], "model": "m"} trailing',
        b'{"features": [1, 2], "model": "\xff"}',
        b"",
        b"null",
        b'{"features": [[1, 2], [1]], "model": "m"}',
        b'{"features": [1, 2, 3], "model": "m"}',
        b'{"features": [], "model": "m"}',
        b'{"features": ["a", "b"], "model": "m"}',
        b'{"features": {"x": {"y": 1}}, "model": "m"}',
    ],
)  # fmt: skip
def test_bad_json(server: Server, body: bytes) -> None:
    """Deep, long, broken or unfitting JSON is 400 (or 413) with a sentence."""
    answer = post(server, body)
    assert answer.status in (400, 413), answer
    assert answer.error
    assert len(answer.error) < 2_000


@pytest.mark.parametrize(
    ("shape", "datatype"),
    [
        ([-1, 2], "FP64"),
        ([2**62, 2], "FP64"),
        ([2**31, 2**31, 4], "FP64"),
        ([1, 2, 0], "FP64"),
        ([], "FP64"),
        ([1, 3], "FP64"),
        ([1.5, 2], "FP64"),
        (["1", 2], "FP64"),
        ([1, 2], "FP65"),
        ([1, 2], "BYTES"),
        ([True, 2], "FP64"),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_bad_tensors(server: Server, shape: list[Any], datatype: str, binary: bool) -> None:
    """Shapes that are negative, huge or wrong are refused before anything is allocated for them."""
    tensor: dict[str, Any] = {"name": "x", "shape": shape, "datatype": datatype}
    headers = {"content-type": "application/json"}
    if binary:
        tensor["parameters"] = {"binary_data_size": 16}
        text = json.dumps({"inputs": [tensor]}).encode()
        body = text + b"\0" * 16
        headers = {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(len(text)),
        }
    else:
        body = json.dumps({"inputs": [tensor | {"data": [1.0, 2.0]}]}).encode()
    answer = server.data("POST", "/v2/models/m/infer", body, headers=headers)
    assert answer.status in (400, 413), answer
    assert answer.error


@pytest.mark.parametrize(
    "length", ["-1", "abc", "1e3", "99999999999", "4294967296", "", "0x10", "+5", " 5 5"]
)
def test_bad_binary_headers(server: Server, length: str) -> None:
    """A length of the JSON part that cannot be is refused."""
    body = b'{"inputs": []}'
    headers = {
        "content-type": "application/octet-stream", "inference-header-content-length": length,
    }  # fmt: skip
    answer = server.data("POST", "/v2/models/m/infer", body, headers=headers)
    assert answer.status == 400, answer


BAD_NAMES = [
    "..", "%2e%2e", "%252e%252e%252f", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "a%00b",
    "a%5c..%5cb", "C:%5cx", "-a", ".hidden", "a" * 129, "%ff%fe", "a%20b", "a%0d%0ab", "%C3%A9",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(server: Server, name: str) -> None:
    """A name that is none leads nowhere, for reading, writing and deleting, on both listeners."""
    before = sorted(str(path) for path in server.state_dir.rglob("*") if path.suffix != ".db")
    for path in (f"/v2/models/{name}", f"/v2/models/m/versions/{name}"):
        assert server.data("GET", path).status in (400, 404), path
        assert server.data("POST", path + "/infer", {"inputs": []}).status in (400, 404), path
    for path in (f"/api/v1/models/{name}", f"/api/v1/models/m/versions/{name}"):
        assert server.control("DELETE", path).status in (400, 404, 405), path
    assert server.control("GET", f"/api/v1/models/{name}").status in (400, 404, 405)
    for action, body in (("switch", {"version": "v1"}), ("versions", {"uri": str(server.models)})):
        answer = server.control("POST", f"/api/v1/models/{name}/{action}", body)
        assert answer.status in (400, 404, 405), (action, answer)
    assert sorted(str(p) for p in server.state_dir.rglob("*") if p.suffix != ".db") == before


@pytest.mark.parametrize(
    "uri",
    [
        "/etc", "file:///etc", "file://localhost/etc", "file:///etc/passwd", "{models}/../../etc",
        "{models}/m/../../../etc", "{models}\\..\\..\\etc", "http://127.0.0.1/x", "s3://a/b",
        "ftp://a/b", "//evil/share", "{models}/%2e%2e/%2e%2e/etc", "", "{models}/m/v1\0/etc",
        "data:,x", "{state}/hotswap.db", "{link}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("more", [{}, {"in_place": True, "metadata": {"is_prompt": "true"}}])
def test_bad_sources(server: Server, tmp_path: Path, uri: str, more: dict[str, Any]) -> None:
    """A version comes from within the allowed roots or not at all, whatever else is said of it."""
    assert server.models is not None
    link = server.models / "m" / "link"
    if not link.is_symlink():
        link.symlink_to("/etc")
    full = uri.replace("{models}", str(server.models)).replace("{state}", str(server.state_dir))
    full = full.replace("{link}", str(link))
    answer = server.control(
        "POST", "/api/v1/models/m/versions", {"uri": full, "version": "v9"} | more
    )
    assert answer.status in (400, 403), answer
    assert "Traceback" not in answer.error
    assert not server.has_version("m", "v9")


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "PUT", "GET", "OPTIONS", "BREW"])
def test_foreign_hosts_and_origins(server: Server, method: str) -> None:
    """A browser led here by another site cannot use the control API, whatever the method."""
    for headers in (
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "null", "x-http-method-override": "DELETE"},
    ):
        path = "/api/v1/models/m/versions/v2"
        answer = server.control(method, path, headers=headers)
        if "host" in headers:
            assert answer.status in (400, 403, 421), (headers, answer)
        elif method in ("POST", "DELETE", "PATCH", "PUT"):
            assert answer.status in (403, 405), (headers, answer)
        assert server.has_version("m", "v2")


def test_errors_tell_nothing_of_the_machine(server: Server) -> None:
    """No error names a path, a process, the environment or a line of code."""
    for answer in (
        server.data("GET", "/nowhere"), server.data("BREW", "/v2"),
        server.data("POST", "/predict", {"features": "x"}), server.control("GET", "/nowhere"),
        server.control("POST", "/api/v1/models/m/switch", {"version": "v77"}),
        server.control("POST", "/api/v1/models/m/switch", {"version": 3}),
        server.control("POST", "/api/v1/models/m/switch", {"version": "v1", "strategy": "canary"}),
        server.control("POST", "/api/v1/models/m/switch", b"{"),
        server.control("GET", "/api/v1/operations/none"),
    ):  # fmt: skip
        assert 400 <= answer.status < 500, answer
        assert answer.status != 422
        assert set(answer.json) == {"error"}
        for secret in (str(server.state_dir), str(server.models), "site-packages", ".py", "0x"):
            assert secret not in answer.error


def test_too_many_connections(server: Server) -> None:
    """Beyond the limit a connection is told so, and the rest go on."""
    held: list[socket.socket] = []
    try:
        refused = 0
        while not refused and len(held) < 1200:
            client = socket.create_connection(("127.0.0.1", server.data_port), timeout=5)
            held.append(client)
            client.setblocking(False)
            if len(held) > 400:
                refused = sum(_refused(each) for each in held)
        assert refused
    finally:
        for client in held:
            client.close()
    wait_until(lambda: server.predict("m").status == 200, "places to be free again")


def _refused(client: socket.socket) -> bool:
    try:
        return client.recv(65536, socket.MSG_PEEK).startswith(b"HTTP/1.1 503 ")
    except (BlockingIOError, ConnectionResetError):
        return False
