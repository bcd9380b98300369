"""The real machine (`hotswap.core.decide`) on simulated traffic: windows in, decisions out.

Stands where control stands: it observes, decides, opens stages and carries exposure out at once.
"""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec
import numpy as np

from benchmarks.decisions import vectors
from benchmarks.decisions.falsealarms import MEDIAN_NS, SIGMA
from hotswap.core.analysis import Analysis
from hotswap.core.decide import decide
from hotswap.core.evidence import Evidence, Stage, folded, opened
from hotswap.core.plan import compile_steps
from hotswap.core.rollout import Exposure, Observation, Rollout, Status
from hotswap.core.routing import WHOLE
from hotswap.core.strategy import parse
from hotswap.core.windows import ARMS, ArmCounts, Window
from hotswap.serving.windows import LATENCY_GAP_NS

_replace = msgspec.structs.replace


class Machine:
    """One rollout of v2 beside v1, ``rate`` requests a second, a tick every ``seconds``.

    ``p0`` and ``p1``: rates of errors; ``slow``: the candidate's times over stable's.
    """

    def __init__(
        self,
        body: dict[str, Any],
        rng: np.random.Generator,
        *,
        p0: float,
        p1: float,
        rate: float,
        seconds: float,
        slow: float = 1.0,
    ) -> None:
        spec = parse({"model": "m", "version": "v2", **body})
        self.rollout = Rollout(
            "r", spec, compile_steps(spec), Status(salt="s"), "v1", Evidence(error_mean=p0)
        )
        self.seconds, self.rate = seconds, rate
        self.now = 0.0
        self.ticks = 0
        self.decide_seconds = 0.0
        self.analysis: Analysis | None = None
        self.moves: list[tuple[float, str, str]] = []
        self._rng, self._p0, self._p1, self._slow = rng, p0, p1, slow
        self._exposed: Exposure | None = None
        self._active = "v1"

    def seen(self) -> Observation:
        """What control would see now."""
        return Observation(
            exposed=self._exposed, active=self._active, ready=True, target="v1", rate=self.rate
        )

    def tick(self) -> Status:
        """Decide on what has come in, then let traffic come in for the length of a tick."""
        begin = time.perf_counter()
        decision = decide(self.rollout, self.seen(), self.seconds)
        self.decide_seconds += time.perf_counter() - begin
        self.ticks += 1
        self.rollout = _replace(self.rollout, status=decision.status)
        self.analysis = decision.analysis or self.analysis
        if decision.moved:
            self.moves.append((self.now, decision.status.state, decision.status.message))
        self._carry_out(decision.status)
        if self._exposed is not None:
            window = self._window(self._exposed)
            self.rollout = _replace(self.rollout, evidence=folded(self.rollout.evidence, [window]))
        self.now += self.seconds
        return decision.status

    def run(self, until: float = math.inf, states: tuple[str, ...] = ()) -> Status:
        """Tick until it is over, in one of ``states``, or ``until`` seconds have gone by."""
        status = self.rollout.status
        while not self.rollout.final and self.now < until:
            status = self.tick()
            if status.state in states:
                break
        return status

    @property
    def candidate_requests(self) -> int:
        """Requests that the candidate had before it was stable."""
        return sum(
            stage.candidate.requests
            for stage in self.rollout.evidence.stages
            if stage.weight < WHOLE
        )

    def _carry_out(self, status: Status) -> None:
        if status.state == "promoting":
            self._active = "v2"
            self._show(Exposure(status.stage + 1, weight=WHOLE, bake=True))
        elif status.state in ("rolling_back", "watching"):
            self._exposed = None
            self._active = "v1" if status.state == "rolling_back" else self._active
        elif status.exposure != self._exposed and status.state in ("running", "baking"):
            self._show(status.exposure)

    def _show(self, exposure: Exposure | None) -> None:
        self._exposed = exposure
        if exposure is None:
            return
        twin = exposure.weight if exposure.twin else 0
        stage = Stage(exposure.stage, exposure.weight, twin)
        self.rollout = _replace(self.rollout, evidence=opened(self.rollout.evidence, stage))

    def _window(self, exposure: Exposure) -> Window:
        ours = exposure.weight / WHOLE
        twin = ours if exposure.twin else 0.0
        total = int(self._rng.poisson(self.rate * self.seconds))
        split = self._rng.multinomial(total, (1.0 - ours - twin, twin, ours))
        timed = self._timed(split, twin=exposure.twin)
        arms = {
            name: self._arm(int(count), int(times), candidate=name == "candidate")
            for name, count, times in zip(ARMS, split, timed, strict=True)
        }
        number = int(self.now * 5)
        return Window(
            "r.1", exposure.stage, "w", number, exposure.weight, round(twin * WHOLE), arms
        )

    def _timed(self, split: vectors.Ints, *, twin: bool) -> vectors.Ints:
        """Of how many requests of each arm the latency is taken: one in 50 ms, for which the arms
        that are compared share their turns.
        """
        turns = int(self.seconds * 1e9 / LATENCY_GAP_NS)
        groups = ((0,), (1, 2)) if twin else ((0, 1, 2),)
        timed = np.zeros(3, np.int64)
        for group in groups:
            counts = split[list(group)]
            taken = min(turns, int(counts.sum()))
            timed[list(group)] = self._rng.multivariate_hypergeometric(counts, taken)
        return timed

    def _arm(self, requests: int, timed: int, *, candidate: bool) -> ArmCounts:
        errors = int(self._rng.binomial(requests, self._p1 if candidate else self._p0))
        times = MEDIAN_NS * np.exp(SIGMA * self._rng.standard_normal(timed))
        at, counts = np.unique(
            vectors.buckets_of(times * (self._slow if candidate else 1.0)), return_counts=True
        )
        latency = dict(zip(at.tolist(), counts.tolist(), strict=True))
        return ArmCounts(requests, errors, latency=latency)
