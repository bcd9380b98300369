"""Requests on fakes: what workers would count of a rollout while time passes by hand."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from hotswap.core.rollout_views import RolloutView
from hotswap.core.routing import WHOLE, Split
from hotswap.core.windows import WINDOW_NS, ArmCounts, PairCounts, Window
from tests.unit.control.fakes import World, settle

#: A canary that is over in a minute and a half.
CANARY: dict[str, Any] = {
    "model": "m", "version": "v2", "strategy": "canary",
    "config": {"initial_percentage": 10, "step_percentage": 40, "evaluation_period_seconds": 10},
    "bake_seconds": 20, "watch_seconds": 10,
}  # fmt: skip


def body(**changes: Any) -> dict[str, Any]:
    """A canary of m to v2, but for these keys."""
    return {**CANARY, **changes}


class Traffic:
    """``rate`` requests a second to every model; failures by version; the same for a seed.

    ``restart``: what happens after control was killed.
    """

    def __init__(self, world: World, *, rate: int = 4000, seed: int = 1) -> None:
        self.world = world
        self.rate = rate
        self.restart: Callable[[], Awaitable[object]] = world.restart
        self.failing: dict[str, float] = {}
        self.slow: dict[str, int] = {}
        #: requests that were counted, by test
        self.sent: dict[str, int] = {}
        self._random = random.Random(seed)
        self._rests: dict[str, float] = {}

    def flow(self, seconds: float) -> None:
        """So many seconds of requests, counted under the tables that are in force."""
        supervisor = self.world.supervisor
        number = int(self.world.clock.monotonic() * 1e9) // WINDOW_NS
        for table in list(supervisor.tables.values()):
            if table.split is not None and table.index not in supervisor.stable_only:
                requests, test = int(self.rate * seconds), table.split.test
                self.sent[test] = self.sent.get(test, 0) + requests
                supervisor.count(self.window(table.split, requests, number))

    def window(self, split: Split, requests: int, number: int) -> Window:
        """One worker's report."""
        arms: dict[str, ArmCounts] = {}
        left = requests
        shares = (("candidate", split.weight, split.candidate),
                  ("twin", split.twin_weight, split.baseline))  # fmt: skip
        for name, weight, version in shares:
            if weight:
                count = self._share(f"{split.test}{name}", requests * weight / WHOLE)
                arms[name] = self.arm(version, min(left, count))
                left -= arms[name].requests
        if left:
            arms["baseline"] = self.arm(split.baseline, left)
        pairs = None
        if split.pair or split.mirror:
            total = requests if split.pair else requests * split.mirror // WHOLE
            bad = self._failures(split.candidate, total)
            pairs = PairCounts(total, total - bad, total - bad, worse=bad)
        return Window(split.test, split.stage, "w1", number, split.weight, split.twin_weight,
                      arms, pairs=pairs, mirrored=requests * split.mirror // WHOLE)  # fmt: skip

    def _share(self, key: str, wanted: float) -> int:
        wanted += self._rests.get(key, 0.0)
        count = int(wanted)
        self._rests[key] = wanted - count
        return count

    def _failures(self, version: str, count: int) -> int:
        rate = self.failing.get(version, 0.0)
        return sum(self._random.random() < rate for _ in range(count)) if rate else 0

    def arm(self, version: str, count: int) -> ArmCounts:
        """So many requests of a version."""
        bad = self._failures(version, count)
        good = count - bad
        latency: dict[int, int] = {}
        at, left = 30 + self.slow.get(version, 0), good
        while left:  # half as many in each bucket as in the one before
            latency[at] = (left + 1) // 2
            left -= latency[at]
            at += 1
        return ArmCounts(count, errors=bad, latency=latency)


async def tick(world: World) -> None:
    """One tick of control's rollouts, unless it is killed in it."""
    await settle()
    await world.run(world.service._rollouts.tick())
    await settle()


async def drive(
    traffic: Traffic,
    seconds: float,
    *,
    step: float = 1.0,
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Let time pass under traffic. A control that was killed is started again."""
    world = traffic.world
    passed = 0.0
    while passed < seconds and not until():
        traffic.flow(step)
        world.clock.advance(step)
        await tick(world)
        if not world.life.alive:
            await traffic.restart()
            await tick(world)
        passed += step


async def ended(
    traffic: Traffic, id: str, *, step: float = 1.0, most: float = 600.0
) -> RolloutView:
    """The rollout when it is over."""
    rollouts = traffic.world
    await drive(
        traffic, most, step=step,
        until=lambda: rollouts.service._rollouts._runs[id].closed,
    )  # fmt: skip
    view = await rollouts.service.rollout(id)
    assert view.final, (view.phase, view.reason, view.message)
    return view


async def until_phase(traffic: Traffic, id: str, phase: str, most: float = 300.0) -> RolloutView:
    """The rollout once it is in that phase."""
    world = traffic.world
    view = await world.service.rollout(id)
    for _ in range(int(most)):
        if view.phase == phase:
            return view
        await drive(traffic, 1.0)
        view = await world.service.rollout(id)
    raise AssertionError(f"it never was {phase}: {view.phase} {view.reason} {view.message}")
