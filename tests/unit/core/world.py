"""A simulated data plane for the pure rollout machine: it carries out what is decided, with traffic."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any

import msgspec
import numpy as np

from hotswap.core.analysis import Reading
from hotswap.core.commands import commanded
from hotswap.core.decide import decide
from hotswap.core.evidence import Evidence, Stage, folded, opened
from hotswap.core.journal import Entry, Record
from hotswap.core.phases import phase, reason
from hotswap.core.plan import compile_steps
from hotswap.core.rollout import Decision, Exposure, Observation, Rollout, Status, analysed
from hotswap.core.rollout_views import JournalView
from hotswap.core.routing import WHOLE
from hotswap.core.strategy import parse
from hotswap.core.windows import WINDOW_NS, ArmCounts, PairCounts, Window
from hotswap.stats.buckets import bucket

_replace = msgspec.structs.replace
TIMED_A_SECOND = 20


class World:
    """One rollout with its traffic: ``p0`` and ``p1`` are the arms' error rates, ``slow`` how many
    times as long the candidate takes. Everything that can go wrong is an attribute.
    """

    def __init__(
        self,
        body: dict[str, Any] | None = None,
        *,
        p0: float = 0.002,
        p1: float = 0.002,
        rps: float = 500.0,
        slow: float = 1.0,
        seed: int = 7,
        error_mean: float | None = None,
    ) -> None:
        spec = parse({"model": "m", "version": "v2", "strategy": "canary", **(body or {})})
        mean = p0 if error_mean is None else error_mean
        self.rollout = Rollout(
            "r1", spec, compile_steps(spec), Status(salt="s"), "v1", Evidence(error_mean=mean)
        )
        self.p0, self.p1, self.rps, self.slow = p0, p1, rps, slow
        self.random = np.random.default_rng(seed)
        self.now = 0.0
        self.exposed: Exposure | None = None
        self.active: str | None = "v1"
        self.ready = True
        self.flips = True  # whether flips are carried out
        self.target: str | None = "v1"
        self.outage = self.breaker = self.load_error = self.lacking = ""
        self.restarts = 0
        self.blocked = False
        self.served = (0, 0)
        self.readings: dict[str, Reading] = {}
        self.journal: list[Entry] = []
        self.said: list[str] = []
        self.requests = 0

    def copy(self) -> World:
        """Another world that goes on from here by itself."""
        other = copy(self)
        other.random = deepcopy(self.random)
        other.journal, other.said = list(self.journal), list(self.said)
        other.readings = dict(self.readings)
        return other

    # --- what is seen

    @property
    def status(self) -> Status:
        return self.rollout.status

    @property
    def phase(self) -> str:
        return phase(self.status)

    @property
    def reason(self) -> str:
        return reason(self.status)

    def seen(self) -> Observation:
        return Observation(
            exposed=self.exposed,
            active=self.active,
            ready=self.ready,
            lacking=self.lacking,
            load_error=self.load_error,
            restarts=self.restarts,
            breaker=self.breaker,
            outage=self.outage,
            blocked=self.blocked,
            served=self.served,
            target=self.target,
            rate=self.rps,
            readings=dict(self.readings),
        )

    # --- what happens

    def tick(self, seconds: float = 0.2) -> Decision:
        """Time passes with traffic, then one decision is made and carried out."""
        self.traffic(seconds)
        self.now += seconds
        seen = self.seen()
        before = self.rollout
        decision = decide(before, seen, seconds)
        self.rollout = _replace(before, status=decision.status)
        if decision.moved:
            self.note("decided", Record(before, decision.status, seen, seconds))
            self.said.append(f"{self.now:.1f} {self.phase} {self.reason} {self.status.message}")
        self.act()
        return decision

    def command(self, name: str, *, force: bool = False, why: str = "") -> None:
        """What an operator does; raises what they are told."""
        seen = self.seen()
        before = self.rollout
        analysis = analysed(before, seen)
        self.rollout = commanded(before, name, analysis, force=force, why=why)
        if self.rollout is not before:
            record = Record(before, self.status, seen, force=force)
            self.note("commanded", record, name, why)

    def note(self, kind: str, record: Record, command: str = "", why: str = "") -> None:
        number = len(self.journal) + 1
        self.journal.append(Entry(number, self.now, kind, record, "", command, why))

    def entries(self) -> list[JournalView]:
        """The journal as it is shown and verified."""
        return [entry.view() for entry in self.journal]

    def act(self) -> None:
        """Carry out what should be, as far as there is capacity and a store."""
        status = self.status
        if status.exposure is None:
            self.exposed = None
        if status.state in ("running", "baking"):
            can = self.ready and not self.outage
            if status.exposure != self.exposed and status.exposure is not None and can:
                self.show(status.exposure)
        elif status.state == "promoting" and self.flips and self.ready and not self.outage:
            self.active = self.rollout.spec.version
            self.show(Exposure(status.stage + 1, WHOLE, bake=True))
        elif status.state == "rolling_back" and self.flips:
            self.active = self.rollout.stable

    def show(self, exposure: Exposure) -> None:
        self.exposed = exposure
        twin = exposure.weight if exposure.twin else 0
        stage = Stage(exposure.stage, exposure.weight, twin, exposure.pair, exposure.mirror)
        self.rollout = _replace(self.rollout, evidence=opened(self.rollout.evidence, stage))

    def traffic(self, seconds: float) -> None:
        count = int(self.rps * seconds)
        self.requests += count
        if self.active == self.rollout.spec.version:
            failed = int(self.random.binomial(count, self.p1)) if count else 0
            self.served = (self.served[0] + failed, self.served[1] + count)
        if self.exposed is not None and count:
            self.deliver([self.window(self.exposed, count, seconds)])

    def deliver(self, windows: list[Window]) -> None:
        self.rollout = _replace(self.rollout, evidence=folded(self.rollout.evidence, windows))

    def window(self, exposure: Exposure, count: int, seconds: float = 0.2) -> Window:
        """What workers counted of so many requests under an exposure."""
        weight, twin = exposure.weight, exposure.weight if exposure.twin else 0
        shares = [(WHOLE - weight - twin) / WHOLE, twin / WHOLE, weight / WHOLE]
        split = self.random.multinomial(count, shares)
        rates = (self.p0, self.p0, self.p1)
        arms: dict[str, ArmCounts] = {}
        for arm, n, p in zip(("baseline", "twin", "candidate"), split, rates, strict=True):
            errors = int(self.random.binomial(n, p))
            factor = self.slow if arm == "candidate" else 1.0
            arms[arm] = ArmCounts(
                int(n), errors, latency=self.timed(int(n), factor, seconds, count)
            )
        number = int(self.now * 1e9) // WINDOW_NS
        pairs = self.pairs(exposure, count)
        test = self.rollout.test
        return Window(test, exposure.stage, "w", number, weight, twin, arms, pairs=pairs)

    def timed(self, n: int, factor: float, seconds: float, count: int) -> dict[int, int]:
        """Latency of a part of an arm's requests: chosen by time alone, whatever the arm."""
        timed = int(self.random.binomial(n, min(1.0, TIMED_A_SECOND * seconds / count)))
        counts: dict[int, int] = {}
        for value in self.random.lognormal(0.5, 0.3, timed):
            at = bucket(int(1e6 * factor * value))
            counts[at] = counts.get(at, 0) + 1
        return counts

    def pairs(self, exposure: Exposure, count: int) -> PairCounts | None:
        if not (exposure.pair or exposure.mirror):
            return None
        total = (
            count if exposure.pair else int(self.random.binomial(count, exposure.mirror / WHOLE))
        )
        chances = [
            (1 - self.p0) * (1 - self.p1),
            (1 - self.p0) * self.p1,
            self.p0 * (1 - self.p1),
            self.p0 * self.p1,
        ]
        both, worse, better, neither = (int(n) for n in self.random.multinomial(total, chances))
        return PairCounts(total, both, both, worse, better, neither)

    def until(
        self, done: Callable[[World], bool], *, most: float = 3600.0, tick: float = 0.2
    ) -> World:
        """Tick until it is so. Fails after so many simulated seconds, with what was said."""
        end = self.now + most
        while not done(self):
            assert self.now < end, "\n".join([*self.said[-20:], f"at {self.status}"])
            self.tick(tick)
        return self

    def end(self, *, most: float = 86400.0, tick: float = 0.2) -> World:
        """Tick until it is over."""
        return self.until(lambda world: world.rollout.final, most=most, tick=tick)

    def running(self, kind: type | None = None, **options: float) -> World:
        """Tick until it runs, and stands at a step of that kind."""
        return self.until(
            lambda world: (
                world.status.state == "running"
                and world.exposed is not None
                and world.exposed == world.status.exposure
                and (kind is None or isinstance(world.rollout.steps[world.status.step], kind))
            ),
            **options,
        )
