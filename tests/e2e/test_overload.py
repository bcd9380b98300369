"""More than a server can do: bounded queues, early refusals, and work that nobody waits for."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e import tricks
from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

QUEUE = 4


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that gets a line for every slow row that was computed."""
    return tmp_path_factory.mktemp("notes") / "ran"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, notes: Path) -> Iterator[Server]:
    """One worker, four waiting rows a version at most; a call takes one request at a time."""
    root = tmp_path_factory.mktemp("overload")
    settings = "batch_rows: 1\n"
    write_trick(root / "models", "m", "v1", note=notes, settings=settings)
    write_trick(root / "models", "other", "v1")
    with Server(
        root / "models", root / "state", f"--limit-queue-rows={QUEUE}", workers=1
    ) as server:
        wait_until(lambda: server.predict("other").status == 200, "both models")
        yield server


def ran(notes: Path) -> int:
    """How many slow rows were computed."""
    return notes.read_text().count("ran") if notes.exists() else 0


def slow_request(seconds: float) -> bytes:
    """A row that the model works on for so long."""
    body = json.dumps({"features": [tricks.SLOW, seconds], "model": "m"}).encode()
    return (
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )


def at_rest(server: Server) -> None:
    """Until no request is in flight."""
    wait_until(lambda: server.stats("m")["inflight"] == 0, "the server to be at rest")


def test_a_full_queue(server: Server, notes: Path) -> None:
    """What does not fit is refused at once with Retry-After; what was taken is answered."""
    at_rest(server)
    before = ran(notes)
    with ThreadPoolExecutor(16) as pool:
        row = (tricks.SLOW, 0.5)
        answers = list(pool.map(lambda _: server.predict("m", row), range(16)))
        assert server.predict("other").status == 200, "another model has its own queue"
    kinds = Counter(answer.status for answer in answers)
    assert kinds[200] == QUEUE, kinds
    assert kinds[200] + kinds[429] + kinds[503] == 16, kinds
    for answer in answers:
        if answer.status != 200:
            assert int(answer.headers["retry-after"]) >= 1
            assert "waiting" in answer.error
    at_rest(server)
    assert ran(notes) - before == QUEUE, "a request that was refused was computed"
    errors = server.stats("m")["errors"]
    assert errors["overload"] == 16 - QUEUE


def test_goodput_does_not_collapse(server: Server) -> None:
    """Far more connections than places: as many are served as places turn free, none is lost."""
    at_rest(server)
    before = server.stats("m")
    with Load(server.data_port, "m", 3 * QUEUE, pause=0) as load:
        load.wait(600)
    kinds = Counter(sent.status for sent in load.sent)
    assert set(kinds) <= {200, 429, 503}, kinds
    assert kinds[200] > 100, kinds
    at_rest(server)
    after = server.stats("m")
    assert after["success"] - before["success"] == kinds[200]
    assert after["fail"] - before["fail"] == len(load.sent) - kinds[200]


def test_a_disconnect_frees_queued_work(server: Server, notes: Path) -> None:
    """Requests whose clients are gone leave the queue, are not computed, and are counted."""
    at_rest(server)
    before, cancelled = ran(notes), server.stats("m")["errors"].get("cancelled", 0)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.predict, "m", (tricks.SLOW, 2.0))
        wait_until(lambda: server.stats("m")["inflight"] == 1, "the first to run")
        leaving = [socket.create_connection(("127.0.0.1", server.data_port)) for _ in range(3)]
        for client in leaving:
            client.sendall(slow_request(0.1))
        wait_until(lambda: server.stats("m")["inflight"] == 4, "three to wait")
        assert server.predict("m").status in (429, 503)
        for client in leaving:
            client.close()
        wait_until(lambda: server.stats("m")["inflight"] == 1, "the three to be gone")
        assert running.result().status == 200
    assert server.predict("m").status == 200
    assert ran(notes) - before == 1, "work was done that nobody waited for"
    assert server.stats("m")["errors"]["cancelled"] - cancelled == 3


def test_a_deadline_in_the_queue(server: Server, notes: Path) -> None:
    """What waits past its own deadline is answered 504 and is not computed."""
    at_rest(server)
    before = ran(notes)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.predict, "m", (tricks.SLOW, 1.5))
        wait_until(lambda: server.stats("m")["inflight"] == 1, "the first to run")
        body = {"features": [tricks.SLOW, 0.1], "model": "m"}
        answer = server.data("POST", "/predict", body, headers={"x-hotswap-timeout-ms": "200"})
        assert answer.status == 504, answer
        assert not running.done()
        assert running.result().status == 200
    at_rest(server)
    assert server.predict("m").status == 200
    assert ran(notes) - before == 1
