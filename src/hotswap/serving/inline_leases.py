"""A published table as an engine holds it, and one request's hold on it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hotswap.core.routing import RouteTable, VersionEntry, choose
from hotswap.core.signature import Signature
from hotswap.ports import Array
from hotswap.serving.inline_counters import Counters
from hotswap.serving.inline_links import Runner
from hotswap.serving.inline_split import SplitLoop, SplitRoute
from hotswap.serving.payload import FAILURES

if TYPE_CHECKING:
    from hotswap.serving.inline import InlinePlane

_now_ns = time.monotonic_ns


class InlineArm:
    """One version of one published table, with its loaded instances."""

    __slots__ = ("entry", "runners")

    def __init__(self, entry: VersionEntry, runners: list[Runner]) -> None:
        self.entry = entry
        self.runners = runners

    def pick(self) -> Runner:
        """The instance with the fewest waiting rows."""
        runners = self.runners
        if len(runners) == 1:
            return runners[0]
        return min(runners, key=lambda runner: runner.pending_rows)


class InlineRoute:
    """One published table. It drains until its last lease is released.

    ``division``: how its unpinned requests are divided, None if they are not, or not any more.
    ``safe``: the version that answers when they are not.
    """

    __slots__ = ("arms", "choice", "division", "leases", "safe", "table")

    def __init__(self, table: RouteTable, arms: dict[str, InlineArm]) -> None:
        self.table = table
        self.arms = arms
        self.leases = 0
        chosen = choose(table)
        self.choice = arms.get(chosen.version) if chosen is not None else None
        self.division: SplitRoute | None = None
        before = arms.get(table.split.baseline) if table.split is not None else None
        self.safe = before if before is not None and before.runners else self.choice


class InlineLease:
    """One request's hold on a revision (see `hotswap.ports.Lease`)."""

    __slots__ = (
        "_arm",
        "_counters",
        "_plane",
        "_route",
        "fallback",
        "model",
        "signature",
        "version",
    )

    def __init__(
        self,
        plane: InlinePlane,
        route: InlineRoute,
        arm: InlineArm,
        signature: Signature,
        counters: Counters,
    ) -> None:
        self._plane = plane
        self._route = route
        self._arm = arm
        self._counters = counters
        self.model: str = route.table.model
        self.version: str = arm.entry.version
        self.signature: Signature = signature
        self.fallback: str | None = None

    async def predict(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
        request_id: str,
    ) -> dict[str, Array]:
        counters = self._counters
        counters.begin()
        began = _now_ns()
        try:
            reply = await self._arm.pick().predict(inputs, outputs, rows, deadline)
        except BaseException as exc:
            counters.fail(_now_ns() - began, FAILURES.get(type(exc).__name__, "model"))
            raise
        counters.succeed(
            _now_ns() - began, rows, reply.queue_ns, reply.compute_ns, self._plane.wall_ms()
        )
        return reply.outputs

    def release(self) -> None:
        self._plane.released(self._route)


class DividedLease:
    """One request's hold on a revision that has a split (see `hotswap.ports.Lease`)."""

    __slots__ = (
        "_division", "_key", "_plane", "_route", "_split", "fallback", "model", "signature",
        "version",
    )  # fmt: skip

    def __init__(
        self,
        plane: InlinePlane,
        route: InlineRoute,
        division: SplitRoute,
        split: SplitLoop,
        key: bytes | None,
    ) -> None:
        table = route.table
        assert table.signature is not None
        assert table.split is not None
        self._plane = plane
        self._route = route
        self._division = division
        self._split = split
        self._key = key
        self.model: str = table.model
        self.version: str = table.stable or table.split.baseline
        self.signature: Signature = table.signature
        self.fallback: str | None = None

    async def predict(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
        request_id: str,
    ) -> dict[str, Array]:
        split = self._split
        answer, self.version, self.fallback = await split.on_loop(
            split.predict(self._division, self._key, inputs, outputs, rows, deadline, request_id)
        )
        return answer

    def release(self) -> None:
        self._plane.released(self._route)


__all__ = ["DividedLease", "InlineArm", "InlineLease", "InlineRoute"]
