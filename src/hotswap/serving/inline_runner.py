"""One loaded version in this process: called on the event loop if it is fast, else on a thread.

What arrives while a call runs on the thread is the next batch, as in a host process; no delay is
ever added. A batch that raises is run again request by request. An executor is used from one
thread at a time, whoever asks.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from hotswap.core.batching import BatchQueue
from hotswap.errors import (
    DeadlineExceeded,
    HotswapError,
    InvalidOutput,
    ModelFailed,
    OutOfMemory,
    Overloaded,
    Unavailable,
)
from hotswap.ports import Array, Executor

#: A call that is expected to take less runs where it is asked for, on the event loop.
INLINE_SECONDS: Final = 0.001
_FEW_ROWS: Final = 8
_BREATH_SECONDS: Final = 0.002
_now = time.monotonic
_now_ns = time.monotonic_ns


class Reply(NamedTuple):
    """A call's outputs by name, how long it waited and how long the model ran (nanoseconds)."""

    outputs: dict[str, Array]
    queue_ns: int
    compute_ns: int


class Pace:
    """How long a call takes, as a fixed part and a part for each row, learned from every call.

    >>> pace = Pace(0.0001)
    >>> pace.estimate(1) < INLINE_SECONDS, pace.estimate(10_000) < INLINE_SECONDS
    (True, False)
    >>> pace.learn(10_000, 0.0005)
    >>> pace.estimate(10_000) < INLINE_SECONDS
    True
    """

    def __init__(self, steady_seconds: float) -> None:
        # A version that was never run may take any time.
        self._fixed = steady_seconds or math.inf
        self._row = steady_seconds / _FEW_ROWS
        self._known = False

    def estimate(self, rows: int) -> float:
        """Seconds that a call of so many rows will probably take."""
        return self._fixed + self._row * (rows - 1)

    def learn(self, rows: int, seconds: float) -> None:
        """A call took that long."""
        if math.isinf(self._fixed):
            self._fixed = seconds
        if rows <= _FEW_ROWS:
            self._fixed += 0.2 * (seconds - self._fixed)
            return
        row = max(0.0, seconds - self._fixed) / (rows - 1)
        self._row = self._row + 0.2 * (row - self._row) if self._known else row
        self._known = True


class Call:
    """One request as it waits for the thread."""

    __slots__ = (
        "arrived_ns",
        "deadline",
        "future",
        "gone",
        "inputs",
        "key",
        "loop",
        "outputs",
        "shadow",
        "total_rows",
    )

    alone = False

    def __init__(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
        loop: asyncio.AbstractEventLoop,
        shadow: bool,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.total_rows = rows
        self.deadline = deadline
        self.loop = loop
        self.future: asyncio.Future[Reply] = loop.create_future()
        self.arrived_ns = _now_ns()
        self.gone = False
        self.shadow = shadow
        self.key: Hashable = (
            outputs,
            shadow,
            tuple((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items()),
        )


class InlineRunner:
    """Runs one executor for any number of event loops. `work` is the thread's body."""

    def __init__(
        self,
        executor: Executor,
        *,
        name: str,
        steady_seconds: float,
        batch_rows: int,
        queue_rows: int,
        hang_seconds: float,
        finite: bool,
        describe: Callable[[BaseException], str],
    ) -> None:
        self._executor = executor
        self._name = name
        self._pace = Pace(steady_seconds)
        self._queue: BatchQueue[Call] = BatchQueue(batch_rows)
        self._queue_rows = queue_rows
        self._hang_seconds = hang_seconds
        self._finite = finite
        self._describe = describe
        self._changed = threading.Condition()
        self._in_use = threading.Lock()
        self._busy_since: float | None = None
        self._closed = False
        self._pending_rows = 0
        self._breathed = 0.0
        self._mark_shadow: Callable[[bool], None] | None = getattr(executor, "mark_shadow", None)
        self._shadow = False

    @property
    def pending_rows(self) -> int:
        """Rows that wait or run on the thread."""
        return self._pending_rows

    async def predict(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
        *,
        shadow: bool = False,
        on_thread: bool = False,
    ) -> Reply:
        """Run it here and now if that is quick and nothing waits, else on the thread.

        ``on_thread``: on the thread in any case, where a hang holds up nothing but this runner.
        ``shadow``: nobody waits for the answer (see `hotswap.ports.Executor`). Raises `Overloaded`, `Unavailable`, `DeadlineExceeded`, `ModelFailed`, `OutOfMemory`.
        """
        if deadline <= _now():
            raise DeadlineExceeded("the deadline passed before the model could run")
        inputs = {name: _frozen(array) for name, array in inputs.items()}
        quick = self._pace.estimate(rows) < INLINE_SECONDS and not self._pending_rows
        if quick and not on_thread and self._in_use.acquire(blocking=False):
            try:
                reply = self._run_now(inputs, outputs, rows, shadow)
            finally:
                self._in_use.release()
            await self._breathe()
            return reply
        return await self._run_later(
            Call(inputs, outputs, rows, deadline, asyncio.get_running_loop(), shadow)
        )

    async def _breathe(self) -> None:
        """Let the loop's other work run now and then, for a caller that does nothing but predict."""
        now = _now()
        if now - self._breathed > _BREATH_SECONDS:
            self._breathed = now
            await asyncio.sleep(0)

    def _run_now(
        self, inputs: Mapping[str, Array], outputs: tuple[str, ...], rows: int, shadow: bool
    ) -> Reply:
        if self._closed:
            raise Unavailable(f"{self._name} is being unloaded")
        began = _now_ns()
        try:
            if shadow is not self._shadow:
                self._mark(shadow)
            answer = self._checked(inputs, outputs, rows)
        except (Exception, SystemExit) as exc:
            raise self._failure(exc) from exc
        took = _now_ns() - began
        self._pace.learn(rows, took / 1e9)
        return Reply(answer, 0, took)

    async def _run_later(self, call: Call) -> Reply:
        rows = call.total_rows
        with self._changed:
            if self._closed:
                raise Unavailable(f"{self._name} is being unloaded")
            since = self._busy_since
            if since is not None and _now() - since > self._hang_seconds:
                raise Unavailable(
                    f"{self._name} has been busy with one call for more than "
                    f"{self._hang_seconds:g} s",
                    10,
                )
            if self._pending_rows and self._pending_rows + rows > self._queue_rows:
                raise Overloaded(f"{self._pending_rows} rows are waiting for {self._name} already")
            self._queue.add(call)
            self._pending_rows += rows
            self._changed.notify()
        timer = call.loop.call_later(call.deadline - _now(), _expire, call.future)
        try:
            return await call.future
        finally:
            call.gone = True
            timer.cancel()

    # --- the thread

    def work(self) -> None:
        """Run batches until `close` and everything that waited is done; then close the executor."""
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    break
                batch = self._queue.take()
            try:
                with self._in_use:
                    self._busy_since = _now()
                    self._batch(batch)
            finally:
                self._busy_since = None
        with self._in_use:
            self._executor.close()

    def close(self) -> None:
        """Take no more calls; the thread ends once those that wait are answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _batch(self, batch: Sequence[Call]) -> None:
        now = _now()
        calls: list[Call] = []
        dropped: list[tuple[Call, Reply | HotswapError]] = []
        for call in batch:
            if not call.gone and call.deadline > now:
                calls.append(call)
            else:
                late = DeadlineExceeded("the deadline passed before the model could run")
                dropped.append((call, late))
        self._answer(dropped)
        if not calls:
            return
        began = _now_ns()
        rows = sum(call.total_rows for call in calls)
        try:
            if calls[0].shadow is not self._shadow:
                self._mark(calls[0].shadow)
            outputs = self._checked(_join(calls), calls[0].outputs, rows)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - a model may raise anything
            if len(calls) == 1:
                self._answer([(calls[0], self._failure(exc))])
            else:
                for call in calls:
                    self._answer([(call, self._alone(call))])
            return
        took = _now_ns() - began
        self._pace.learn(rows, took / 1e9)
        answers: list[tuple[Call, Reply | HotswapError]] = []
        at = 0
        for call in calls:
            end = at + call.total_rows
            mine = {name: array[at:end] for name, array in outputs.items()}
            answers.append((call, Reply(mine, began - call.arrived_ns, took)))
            at = end
        self._answer(answers)

    def _answer(self, answers: Sequence[tuple[Call, Reply | HotswapError]]) -> None:
        """Wake who waits, when what they held of the queue is free for what they send next."""
        with self._changed:
            self._pending_rows -= sum(call.total_rows for call, _ in answers)
        _settle(answers)

    def _alone(self, call: Call) -> Reply | HotswapError:
        """A request of a batch that raised, again by itself: only what fails alone has failed."""
        began = _now_ns()
        try:
            outputs = self._checked(call.inputs, call.outputs, call.total_rows)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - a model may raise anything
            return self._failure(exc)
        return Reply(outputs, began - call.arrived_ns, _now_ns() - began)

    def _mark(self, shadow: bool) -> None:
        """Tell the version whether anybody waits for the answers of its next calls."""
        self._shadow = shadow
        if self._mark_shadow is not None:
            self._mark_shadow(shadow)

    def _checked(
        self, inputs: Mapping[str, Array], wanted: tuple[str, ...], rows: int
    ) -> dict[str, Array]:
        """Run the model and check what it gave."""
        outputs = self._executor.predict(inputs, wanted)
        for name, array in outputs.items():
            if array.ndim == 0 or array.shape[0] != rows:
                got = "no rows" if array.ndim == 0 else f"{array.shape[0]} rows"
                raise InvalidOutput(f"output {name!r} has {got} for {rows} rows of input")
            if self._finite and array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InvalidOutput(f"output {name!r} is not finite")
        missing = [name for name in wanted if name not in outputs]
        if missing:
            raise InvalidOutput(f"output {missing[0]!r} is missing")
        return outputs

    def _failure(self, exc: BaseException) -> HotswapError:
        if isinstance(exc, InvalidOutput):
            return exc
        failure: HotswapError
        if isinstance(exc, MemoryError):
            failure = OutOfMemory(f"{self._name} ran out of memory on this request")
        else:
            failure = ModelFailed(self._describe(exc))
        failure.__cause__ = exc
        return failure


def _frozen(array: Array) -> Array:
    """A view that the model cannot write through: the array is the caller's."""
    view = array.view()
    view.flags.writeable = False
    return view


def _join(calls: Sequence[Call]) -> Mapping[str, Array]:
    first = calls[0].inputs
    if len(calls) == 1:
        return first
    return {name: np.concatenate([call.inputs[name] for call in calls]) for name in first}


def _settle(answers: Sequence[tuple[Call, Reply | HotswapError]]) -> None:
    """Wake each loop once with all of its answers."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Call, Reply | HotswapError]]] = {}
    for answer in answers:
        by_loop.setdefault(answer[0].loop, []).append(answer)
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, mine)
        except RuntimeError:
            continue  # that loop has ended, and with it whoever waited


def _deliver(answers: Sequence[tuple[Call, Reply | HotswapError]]) -> None:
    for call, answer in answers:
        if call.future.done():
            continue
        if isinstance(answer, Reply):
            call.future.set_result(answer)
        else:
            call.future.set_exception(answer)


def _expire(future: asyncio.Future[Reply]) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("the deadline passed before the model answered"))


__all__ = ["INLINE_SECONDS", "InlineRunner", "Pace", "Reply"]
