"""One version within the process: inline or on its thread, batches, failures, deadlines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from hotswap import (
    DeadlineExceeded,
    InvalidOutput,
    ModelFailed,
    OutOfMemory,
    Overloaded,
    Unavailable,
)
from hotswap.core.signature import Signature
from hotswap.ports import Array
from hotswap.serving.inline_runner import InlineRunner, Pace
from hotswap.testing.fakes import tensor_signature


class Model:
    """Answers the first column; waits for ``gate``; fails as the first column says."""

    signature: Signature = tensor_signature(1)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[float]] = []
        self.threads: set[str] = set()
        self.closed = False
        self.shadow = False
        self.shadows: list[bool] = []

    def mark_shadow(self, shadow: bool) -> None:
        self.shadow = shadow

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        column = inputs["input"][:, 0]
        self.batches.append(column.tolist())
        self.shadows.append(self.shadow)
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        assert self.gate.wait(30)
        if (column == -1).any():
            raise ValueError("a bad row")
        if (column == -2).any():
            raise MemoryError
        if (column == -3).any():
            raise SystemExit(3)
        if (column == -4).any():
            return {"predict": column[:-1]}
        return {"predict": column}

    def close(self) -> None:
        self.closed = True


class Running:
    """A model, its runner and its thread."""

    def __init__(self, steady: float, **limits: float) -> None:
        self.model = Model()
        self.runner = InlineRunner(
            self.model,
            name="version 'v1' of model 'm'",
            steady_seconds=steady,
            batch_rows=64,
            queue_rows=int(limits.get("queue_rows", 100)),
            hang_seconds=limits.get("hang_seconds", 30.0),
            finite=True,
            describe=lambda exc: f"{type(exc).__name__}: {exc}",
        )
        self.thread = threading.Thread(target=self.runner.work, name="the thread")
        self.thread.start()

    async def ask(self, *values: float, seconds: float = 30.0, shadow: bool = False) -> list[float]:
        rows = np.array(values, float).reshape(-1, 1)
        reply = await self.runner.predict(
            {"input": rows}, (), len(rows), time.monotonic() + seconds, shadow=shadow
        )
        answer: list[float] = reply.outputs["predict"].tolist()
        return answer

    def end(self) -> None:
        self.model.gate.set()
        self.runner.close()
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert self.model.closed


@pytest.fixture
def slow() -> Iterator[Running]:
    running = Running(1.0)
    yield running
    running.end()


async def held(running: Running, *values: float) -> asyncio.Task[list[float]]:
    """A call that the model is in and waits for its gate."""
    task = asyncio.create_task(running.ask(*values))
    assert await asyncio.to_thread(running.model.entered.wait, 30)
    return task


async def test_a_fast_model_runs_on_the_loop() -> None:
    """No thread is switched to for a call of microseconds."""
    running = Running(1e-5)
    running.model.gate.set()
    assert await running.ask(1, 2) == [1, 2]
    assert running.model.threads == {threading.current_thread().name}
    running.end()


async def test_a_fast_model_runs_on_its_thread_when_told_to() -> None:
    """What may hang must not hold up the loop, however fast it was."""
    running = Running(1e-5)
    running.model.gate.set()
    rows = np.array([[1.0]])
    await running.runner.predict({"input": rows}, (), 1, time.monotonic() + 30, on_thread=True)
    assert running.model.threads == {"the thread"}
    running.end()


async def test_copies_are_told_apart_and_never_in_one_batch(slow: Running) -> None:
    """The model is told before the calls that nobody waits for, and after them."""
    first = await held(slow, 1)
    kinds = [False, True, True, False]
    rest = [asyncio.create_task(slow.ask(n, shadow=kind)) for n, kind in enumerate(kinds)]
    await asyncio.sleep(0)
    slow.model.gate.set()
    await asyncio.gather(first, *rest)
    assert sorted(slow.model.batches) == [[0.0, 3.0], [1.0], [1.0, 2.0]]
    marked = dict(zip(map(tuple, slow.model.batches), slow.model.shadows, strict=True))
    assert marked == {(1.0,): False, (0.0, 3.0): False, (1.0, 2.0): True}


async def test_a_slow_model_runs_on_its_thread(slow: Running) -> None:
    """The loop turns while it computes."""
    task = await held(slow, 5)
    assert not task.done()
    slow.model.gate.set()
    assert await task == [5]
    assert slow.model.threads == {"the thread"}


async def test_what_waits_is_the_next_batch(slow: Running) -> None:
    """Everything that came while a call ran is one call, and everyone gets their own rows."""
    first = await held(slow, 1)
    rest = [asyncio.create_task(slow.ask(float(n), float(-n * 10))) for n in range(2, 6)]
    await asyncio.sleep(0)
    slow.model.gate.set()
    assert await first == [1]
    assert await asyncio.gather(*rest) == [[n, -n * 10] for n in range(2, 6)]
    assert len(slow.model.batches) == 2


async def test_a_batch_that_raises_is_run_again_request_by_request(slow: Running) -> None:
    """Only the request that fails alone has failed."""
    first = await held(slow, 1)
    rest = [asyncio.create_task(slow.ask(n)) for n in (2.0, -1.0, 3.0)]
    await asyncio.sleep(0)
    slow.model.gate.set()
    await first
    good, bad, other = await asyncio.gather(*rest, return_exceptions=True)
    assert (good, other) == ([2.0], [3.0])
    assert isinstance(bad, ModelFailed)
    assert str(bad) == "ValueError: a bad row"
    assert isinstance(bad.__cause__, ValueError)


@pytest.mark.parametrize("steady", [1e-5, 1.0])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (-1.0, ModelFailed),
        (-2.0, OutOfMemory),
        (-3.0, ModelFailed),
        (-4.0, InvalidOutput),
        (np.nan, InvalidOutput),
    ],
)
async def test_failures(steady: float, value: float, kind: type[Exception]) -> None:
    """Exceptions, exits, wrong row counts and non-finite outputs fail the request and no more."""
    running = Running(steady)
    running.model.gate.set()
    with pytest.raises(kind):
        await running.ask(value)
    assert await running.ask(7) == [7]
    running.end()


async def test_the_callers_array_cannot_be_written(slow: Running) -> None:
    """A model that scales its input in place fails; the caller's rows stay."""
    slow.model.gate.set()

    def scale(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        inputs["input"][:] = 0
        return {"predict": inputs["input"][:, 0]}

    slow.model.predict = scale  # type: ignore[method-assign]
    rows = np.ones((2, 1))
    with pytest.raises(ModelFailed, match="read-only"):
        await slow.runner.predict({"input": rows}, (), 2, time.monotonic() + 30)
    assert rows.tolist() == [[1], [1]]


async def test_deadlines(slow: Running) -> None:
    """A deadline that passes ends the wait, whether the call runs or waits; late work is dropped."""
    running = asyncio.create_task(slow.ask(1, seconds=0.05))
    waiting = asyncio.create_task(slow.ask(2, seconds=0.05))
    for task in (running, waiting):
        with pytest.raises(DeadlineExceeded):
            await task
    with pytest.raises(DeadlineExceeded):
        await slow.ask(3, seconds=-1)
    slow.model.gate.set()
    assert await slow.ask(4) == [4]
    assert [value for batch in slow.model.batches for value in batch] in ([1, 4], [1, 2, 4])


async def test_a_cancelled_request_is_not_computed(slow: Running) -> None:
    """What nobody waits for any more is dropped from the queue."""
    first = await held(slow, 1)
    second = asyncio.create_task(slow.ask(2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    slow.model.gate.set()
    await first
    assert await slow.ask(3) == [3]
    assert slow.model.batches == [[1], [3]]


async def test_the_queue_is_bounded() -> None:
    """More rows than may wait are refused at once."""
    running = Running(1.0, queue_rows=2)
    first = await held(running, 1)
    second = asyncio.create_task(running.ask(2))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await running.ask(3)
    running.model.gate.set()
    assert (await first, await second) == ([1.0], [2.0])
    running.end()


async def test_an_answer_frees_its_place_in_the_queue() -> None:
    """Who asks again as soon as it was answered is not refused for its own last request."""
    running = Running(1.0, queue_rows=2)
    running.model.gate.set()

    async def client() -> None:
        for _ in range(200):
            assert await running.ask(1) == [1]

    await asyncio.gather(client(), client())
    running.end()


async def test_a_version_that_hangs_takes_no_more() -> None:
    """Once a call has run for longer than hang_seconds, new ones do not queue behind it."""
    running = Running(1.0, hang_seconds=0.01)
    first = await held(running, 1)
    while True:
        try:
            task = asyncio.create_task(running.ask(2))
            await asyncio.wait([task], timeout=0.02)
            if task.done():
                await task
        except Unavailable:
            break
        task.cancel()
    running.model.gate.set()
    assert await first == [1]
    running.end()


async def test_a_closed_runner_answers_what_it_took(slow: Running) -> None:
    """Closing waits for nobody and drops nothing."""
    first = await held(slow, 1)
    slow.runner.close()
    with pytest.raises(Unavailable):
        await slow.ask(2)
    slow.model.gate.set()
    assert await first == [1]


def test_two_loops_may_ask_at_once(slow: Running) -> None:
    """Each loop is woken with its own answers."""
    slow.model.gate.set()
    answers: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(asyncio.run(slow.ask(n))))
        for n in (1.0, 2.0, 3.0)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == [[1], [2], [3]]


def test_the_pace_of_a_version_that_was_never_run() -> None:
    """Until it was seen to be fast, it is not trusted with the loop."""
    pace = Pace(0.0)
    assert pace.estimate(1) > 1
    pace.learn(1, 0.0001)
    assert pace.estimate(1) < 0.001
