"""A host's loop over real sockets, with an executor that does what a test tells it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hotswap.app.host import Describe
from hotswap.core.signature import Signature
from hotswap.ipc.frames import (
    Answer,
    Array,
    Call,
    Cancel,
    Failure,
    FrameReader,
    Header,
    Hello,
    Layout,
    decode_tensor,
    encode_tensor,
    pack,
)
from hotswap.ipc.words import HEALTH_WORDS, Health, Words
from hotswap.serving.hostloop import HostLoop

X = (Layout("x", "FP64", ()),)
Behave = Callable[[Array], dict[str, Array]]


def double(x: Array) -> dict[str, Array]:
    """What the model does unless a test says otherwise."""
    return {"y": 2 * x}


class Model:
    """An executor whose first call can be held back, and which remembers its calls."""

    signature = Signature((), ())

    def __init__(self, behave: Behave = double) -> None:
        self.behave = behave
        self.calls: list[list[float]] = []
        self.asked: list[Sequence[str]] = []
        self.marks: list[tuple[bool, int]] = []
        self.entered = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        x = inputs["x"]
        self.calls.append(x.ravel().tolist())
        self.asked.append(outputs)
        self.entered.set()
        assert self.go.wait(10)
        return self.behave(x)

    def mark_shadow(self, shadow: bool) -> None:
        self.marks.append((shadow, len(self.calls)))

    def close(self) -> None:
        """Nothing to close."""


class Client:
    """A worker as the host sees it."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(path))
        self._reader = FrameReader()
        self._frames: list[tuple[Header, bytes]] = []

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def receive(self) -> tuple[Header, bytes]:
        """The next frame. Raises EOFError when the host has closed the connection."""
        while not self._frames:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError
            self._frames += [(h, bytes(p)) for h, p in self._reader.feed(data)]
        return self._frames.pop(0)

    def answers(self, count: int) -> dict[int, list[float] | Failure]:
        """The next ``count`` requests' values of the one output, or failures, by id."""
        found: dict[int, list[float] | Failure] = {}
        while len(found) < count:
            header, payload = self.receive()
            if isinstance(header, Failure):
                found.update(dict.fromkeys(header.ids, header))
            elif isinstance(header, Answer):
                array = decode_tensor(payload, header.layout[0], sum(header.rows))
                at = 0
                for number, rows in zip(header.ids, header.rows, strict=True):
                    found[number] = array[at : at + rows].ravel().tolist()
                    at += rows
        return found


def call(
    *requests: tuple[int, list[float]],
    late: Sequence[int] = (),
    outputs: tuple[str, ...] = (),
    token: int = 0,
    patience: float = 60.0,
    shadow: bool = False,
) -> bytes:
    """A `Call` of requests (id, rows of x), to be answered within ``patience`` seconds; the ids in
    ``late`` have expired."""
    raw = encode_tensor(np.array([v for _, values in requests for v in values]), "FP64")
    far = time.monotonic() + patience
    deadlines = [1.0 if number in late else far for number, _ in requests]
    ids, rows = [n for n, _ in requests], [len(v) for _, v in requests]
    return pack(Call(X, outputs, ids, rows, deadlines, [len(raw)], token, shadow), raw)


class Running:
    """A loop in a thread; `stop` ends it as the supervisor does."""

    def __init__(self, folder: Path, model: Model, batch_rows: int, finite: bool) -> None:
        self.path = folder / "h1"
        self.model = model
        self.health = Health(Words.create("test-health", HEALTH_WORDS))
        self.health.start(2, 9)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._ours, self._theirs = socket.socketpair()
        self._loop = HostLoop(
            host="1", incarnation=9, slot=2, listener=self._listener,
            control_fd=self._theirs.fileno(), on_control=lambda: False, executor=model,
            health=self.health, batch_rows=batch_rows, finite=finite,
            describe=Describe({"/srv/secret": "m/v1"}),
        )  # fmt: skip
        self.thread = threading.Thread(target=self._loop.run)
        self.thread.start()
        self._clients: list[Client] = []

    def client(self) -> Client:
        client = Client(self.path)
        self._clients.append(client)
        assert client.receive() == (Hello("1", 9), b"")
        return client

    @contextlib.contextmanager
    def held(self, client: Client) -> Iterator[None]:
        """While the model is busy with request 0; what is sent meanwhile has arrived at the end."""
        self.model.go.clear()
        self.model.entered.clear()
        client.send(call((0, [0.0])))
        assert self.model.entered.wait(10)
        yield
        self.model.go.set()

    def stop(self) -> None:
        if not self.thread.is_alive():
            return
        self.model.go.set()
        self._ours.send(b"x")
        self.thread.join(10)
        assert not self.thread.is_alive()
        for client in self._clients:
            client.sock.close()
        for sock in (self._listener, self._ours, self._theirs):
            sock.close()


Start = Callable[..., Running]


@pytest.fixture
def start(runtime_dir: Path) -> Iterator[Start]:
    """Start a loop with a model; it is stopped at the end."""
    running: list[Running] = []

    def begin(behave: Behave = double, *, batch_rows: int = 1024, finite: bool = False) -> Running:
        running.append(Running(runtime_dir, Model(behave), batch_rows, finite))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


def test_a_request_is_answered(start: Start) -> None:
    """Its rows, with how long it waited and how long the model took."""
    host = start()
    client = host.client()
    client.send(call((7, [1.0, 2.0]), outputs=("y",)))
    header, payload = client.receive()
    assert isinstance(header, Answer)
    assert (header.ids, header.rows, header.layout) == ([7], [2], (Layout("y", "FP64", ()),))
    assert np.frombuffer(payload).tolist() == [2.0, 4.0]
    assert header.queue_ns >= 0
    assert header.compute_ns > 0
    assert host.model.asked == [("y",)]
    host.stop()
    assert host.health.busy_since(2) == 0


def test_what_arrives_while_the_model_runs_is_one_batch(start: Start) -> None:
    """Requests of two workers run together; each worker gets its own rows."""
    host = start()
    one, two = host.client(), host.client()
    with host.held(one):
        one.send(call((1, [1.0]), (2, [2.0, 3.0])), call((3, [4.0])))
        two.send(call((1, [5.0])))
    assert one.answers(4) == {0: [0.0], 1: [2.0], 2: [4.0, 6.0], 3: [8.0]}
    assert two.answers(1) == {1: [10.0]}
    assert host.model.calls[0] == [0.0]
    assert sorted(host.model.calls[1]) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(host.model.calls) == 2


def test_batches_keep_to_their_rows_and_outputs(start: Start) -> None:
    """No batch exceeds the rows, and requests for other outputs run apart."""
    host = start(batch_rows=3)
    client = host.client()
    with host.held(client):
        client.send(*(call((n, [float(n)] * 2)) for n in (1, 2)), call((3, [3.0]), outputs=("y",)))
    assert set(client.answers(4)) == {0, 1, 2, 3}
    assert host.model.calls[1:] == [[1.0, 1.0], [3.0], [2.0, 2.0]]


def _fails_on_seven(x: Array) -> dict[str, Array]:
    if (x == 7).any():
        raise RuntimeError("seven, from /srv/secret/model.bin")
    return double(x)


def test_copies_are_batched_apart_and_the_model_is_told(start: Start) -> None:
    """A batch never mixes copies and requests; the mark is set before the calls it applies to."""
    host = start()
    one = host.client()
    with host.held(one):
        one.send(call((1, [1.0])), call((2, [2.0]), shadow=True), call((3, [3.0])))
        one.send(call((4, [4.0]), shadow=True), call((5, [5.0])))
    assert sorted(one.answers(6)) == [0, 1, 2, 3, 4, 5]
    assert host.model.calls == [[0.0], [1.0, 3.0, 5.0], [2.0, 4.0]]
    one.send(call((6, [6.0])))
    one.answers(1)
    assert host.model.marks == [(True, 2), (False, 3)]


def test_only_the_request_that_fails_alone_fails(start: Start) -> None:
    """A batch that raises is run again one by one; the guilty one is told why, the rest answered."""
    host = start(_fails_on_seven)
    client = host.client()
    with host.held(client):
        client.send(call((1, [1.0]), (2, [7.0]), (3, [3.0, 4.0])))
    answers = client.answers(4)
    failure = answers.pop(2)
    assert answers == {0: [0.0], 1: [2.0], 3: [6.0, 8.0]}
    assert isinstance(failure, Failure)
    assert (failure.ids, failure.kind) == ([2], "model")
    assert failure.message == "RuntimeError: seven, from m/v1/model.bin"
    assert "Traceback" in failure.detail
    host.stop()
    assert host.health.busy_since(2) == 0


def test_what_expires_during_a_failing_batch_is_not_computed_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a batch has failed late, its expired requests are timeouts; the others are run."""
    passed = 0

    def monotonic_ns() -> int:
        return time.monotonic_ns() + passed

    def behave(x: Array) -> dict[str, Array]:
        nonlocal passed
        if len(x) > 1:
            passed = 100 * 10**9  # far beyond what `call` gives its requests
            raise RuntimeError("not together")
        return double(x)

    clock = SimpleNamespace(monotonic_ns=monotonic_ns, monotonic=lambda: monotonic_ns() / 1e9)
    monkeypatch.setattr("hotswap.serving.hostloop.time", clock)
    host = start(behave)
    client = host.client()
    with host.held(client):
        client.send(call((1, [1.0]), (2, [2.0])), call((3, [3.0]), patience=1000.0))
    answers = client.answers(4)
    for number in (1, 2):
        failure = answers.pop(number)
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.ids) == ("timeout", [number])
    assert answers == {0: [0.0], 3: [6.0]}
    assert host.model.calls[2:] == [[3.0]]


class Unprintable(Exception):
    """An exception that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def _raise(error: BaseException) -> Behave:
    def behave(x: Array) -> dict[str, Array]:
        raise error

    return behave


def _gives(name: str, array: object) -> Behave:
    return lambda x: {name: array}  # type: ignore[dict-item]


LONE_SURROGATE = np.array(["\ud800"], dtype=object)


CANNOT: dict[str, tuple[Behave, str, str]] = {
    "too few rows": (lambda x: {"y": x[:0]}, "invalid_output", "'y' has 0 rows for 1 rows"),
    "a scalar": (_gives("y", np.float64(3)), "invalid_output", "'y' has no rows"),
    "no dimensions": (_gives("y", np.array(3.0)), "invalid_output", "'y' has no rows"),
    "nothing": (lambda x: {}, "invalid_output", "'y' is missing"),
    "something else": (_gives("z", np.ones(1)), "invalid_output", "'y' is missing"),
    "no memory": (_raise(MemoryError("too much")), "memory", "too much"),
    "unprintable": (_raise(Unprintable()), "model", "Unprintable"),
    "complex": (_gives("y", np.array([1 + 2j])), "invalid_output", "complex128"),
    "dates": (_gives("y", np.array(["2026-01-01"], "M8[D]")), "invalid_output", "datetime64"),
    "bad text": (_gives("y", LONE_SURROGATE), "model", "UnicodeEncodeError"),
    "a list": (_gives("y", [1.0]), "model", "AttributeError"),
    "None": (_gives("y", None), "model", "AttributeError"),
}


@pytest.mark.parametrize(("behave", "kind", "said"), CANNOT.values(), ids=CANNOT)
def test_what_cannot_be_answered_fails_and_the_host_lives(
    start: Start, behave: Behave, kind: str, said: str
) -> None:
    """Wrong rows, missing outputs, values that cannot be sent: that request alone, in a sentence."""
    host = start()
    client = host.client()
    host.model.behave = behave
    client.send(call((1, [1.0]), outputs=("y",)))
    failure = client.answers(1)[1]
    assert isinstance(failure, Failure)
    assert failure.kind == kind
    assert said in failure.message
    host.model.behave = double
    client.send(call((2, [3.0])))
    assert client.answers(1) == {2: [6.0]}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_finite_is_checked_where_it_is_asked_for(start: Start, value: float) -> None:
    """With `finite` a NaN or infinity fails its own request and no other of the batch."""
    host = start(finite=True)
    client = host.client()
    with host.held(client):
        client.send(call((1, [1.0]), (2, [value])))
    answers = client.answers(3)
    failure = answers.pop(2)
    assert answers == {0: [0.0], 1: [2.0]}
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message) == ("invalid_output", "output 'y' is not finite")


def test_not_finite_is_an_answer_otherwise(start: Start) -> None:
    """Without `finite` what the model gave is what the client gets."""
    client = start().client()
    client.send(call((1, [np.inf])))
    assert client.answers(1) == {1: [np.inf]}


def test_what_has_expired_is_not_computed(start: Start) -> None:
    """A deadline that passed while waiting is answered as such, and the model never sees it."""
    host = start()
    client = host.client()
    with host.held(client):
        client.send(call((1, [1.0]), (2, [2.0]), late=[1]), call((3, [3.0]), late=[3]))
    answers = client.answers(4)
    for number in (1, 3):
        failure = answers.pop(number)
        assert isinstance(failure, Failure)
        assert failure.kind == "timeout"
    assert answers == {0: [0.0], 2: [4.0]}
    assert host.model.calls == [[0.0], [2.0]]


def test_what_was_cancelled_is_not_computed(start: Start) -> None:
    """Requests that nobody waits for are dropped without an answer; others go on."""
    host = start()
    client, other = host.client(), host.client()
    with host.held(client):
        client.send(call((1, [1.0]), (2, [2.0])), pack(Cancel([1])))
        other.send(call((1, [5.0])))
    assert client.answers(2) == {0: [0.0], 2: [4.0]}
    assert other.answers(1) == {1: [10.0]}
    assert sorted(host.model.calls[1]) == [2.0, 5.0]


def test_a_cancellation_dies_with_its_connection(start: Start) -> None:
    """What a worker cancelled in vain is not held against its successor's requests."""
    host = start()
    first = host.client()
    first.send(pack(Cancel(list(range(10)))), call((11, [1.0])))
    assert first.answers(1) == {11: [2.0]}
    first.send(pack(Cancel(list(range(10)))))
    first.sock.close()
    second = host.client()
    second.send(call((1, [1.0])))
    assert second.answers(1) == {1: [2.0]}


def test_a_suspect_runs_alone_and_leaves_its_token(start: Start) -> None:
    """A request with a token shares no batch, and shared memory says that it runs."""
    host = start()
    client = host.client()
    with host.held(client):
        client.send(call((1, [1.0])), call((2, [2.0]), token=77), call((3, [3.0])))
    assert set(client.answers(4)) == {0, 1, 2, 3}
    assert host.model.calls[1:] == [[1.0], [2.0], [3.0]]
    seen: list[tuple[int, int]] = []

    def look(x: Array) -> dict[str, Array]:
        seen.append(host.health.running(2))
        assert host.health.busy_since(2) > 0
        return double(x)

    host.model.behave = look
    client.send(call((4, [1.0]), token=78))
    assert client.answers(1) == {4: [2.0]}
    assert seen == [(78, 9)]
    host.stop()
    assert host.health.running(2) == (0, 9)


def test_a_slow_reader_gets_everything_and_holds_up_nobody(start: Start) -> None:
    """An answer larger than the socket holds is sent as it is read; others are served meanwhile."""
    host = start(lambda x: {"y": np.repeat(x, 100_000).reshape(len(x), -1)})
    slow, quick = host.client(), host.client()
    slow.send(*(call((n, [float(n)])) for n in range(8)))
    host.model.entered.wait(10)
    quick.send(call((1, [1.0])))
    header, _ = quick.receive()
    assert isinstance(header, Answer)
    answers = slow.answers(8)
    assert sorted(answers) == list(range(8))
    for number, values in answers.items():
        assert isinstance(values, list)
        assert values == [float(number)] * 100_000


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\n\r\n" + b"\xff" * 64,
        pack(Call(X, (), [1, 2], [1], [1.0], [8]), bytes(8)),
        pack(Call(X, (), [], [], [], [0])),
        pack(Call(X, (), [1], [1], [1.0], [4]), bytes(8)),
    ],
    ids=["http", "lists disagree", "empty", "payload too long"],
)
def test_garbage_closes_its_connection_only(start: Start, noise: bytes) -> None:
    """A peer that does not speak our wire is cut off; the others go on."""
    host = start()
    good, bad = host.client(), host.client()
    bad.send(noise)
    with pytest.raises((EOFError, ConnectionResetError)):
        bad.receive()
    good.send(call((1, [1.0])))
    assert good.answers(1) == {1: [2.0]}


def test_bytes_that_do_not_fit_their_layout_fail_the_request(start: Start) -> None:
    """A tensor of the wrong size is that request's failure, alone or in a batch."""
    host = start()
    client = host.client()
    with host.held(client):
        raw = bytes(12)
        far = time.monotonic() + 60
        client.send(pack(Call(X, (), [1], [1], [far], [12]), raw), call((2, [2.0])))
    answers = client.answers(3)
    assert isinstance(answers.pop(1), Failure)
    assert answers == {0: [0.0], 2: [4.0]}


def test_a_worker_that_goes_away_disturbs_nobody(start: Start) -> None:
    """What a closed connection had waiting disturbs nobody: the rest is answered."""
    host = start()
    gone, stays = host.client(), host.client()
    with host.held(stays):
        gone.send(call((1, [5.0])))
        gone.sock.close()
        stays.send(call((1, [1.0])))
    assert stays.answers(2) == {0: [0.0], 1: [2.0]}
    stays.send(call((2, [2.0])))
    assert stays.answers(1) == {2: [4.0]}
