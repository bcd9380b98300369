"""One rollout as a value, and what happens to it next: the one machine of every strategy. Pure.

`decide` is called at every tick with what was seen; it never waits and never remembers anything
but the status that it returns. Durations are sums of the ticks' lengths, so they survive
restarts and clock steps. Effects are levels, not edges: the status says what should be, whoever
carries it out compares that with what is (`hotswap.core.wanted`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from hotswap.core.analysis import Analysis, Reading, analyse
from hotswap.core.evidence import Evidence
from hotswap.core.plan import Step
from hotswap.core.strategy import RolloutSpec

FINAL: Final = frozenset({"healthy", "completed", "rolled_back", "failed", "degraded"})
#: States in which requests can reach the candidate.
EXPOSED: Final = frozenset({"running", "promoting", "baking"})

PREPARE_SECONDS: Final = 600.0
CAPACITY_SECONDS: Final = 3600.0
PROMOTE_SECONDS: Final = 600.0
RETURN_SECONDS: Final = 600.0
#: How long a rollout may stay paused, or queued.
PAUSE_SECONDS: Final = 30 * 86400.0
#: So often may the candidate's process die before it must go.
RESTARTS: Final = 3


class Exposure(msgspec.Struct, frozen=True):
    """What requests see of the candidate. ``stage`` numbers stretches of constant probability;
    weights of `hotswap.core.routing.WHOLE`. ``bake``: the candidate is stable, the version before
    it the baseline.
    """

    stage: int
    weight: int = 0
    twin: bool = False
    mirror: int = 0
    pair: bool = False
    bake: bool = False


class Status(msgspec.Struct, frozen=True):
    """What is so. ``state``: queued, preparing, running, promoting, baking, watching,
    rolling_back, or one of `FINAL`; people are shown the phase (`hotswap.core.phases`).

    ``holds`` are the reasons to stay where it is, with the seconds each has lasted. ``elapsed``,
    ``state_elapsed`` and ``step_elapsed`` in seconds; the last stands still while held.
    ``exposure``: what should be seen of the candidate, None for nothing. ``stage``: the last
    number used. ``peaks``: the greatest log proof by metric. ``detector``: of the change
    detector after promotion; ``seen``: (failures, requests) that it was told of already.
    ``extended``: how often a deadline was extended.
    ``adapted``: step seconds at which the bandit last moved. ``passed``: steps that were skipped.
    ``approved``: a person said go on. ``salt``: of the attempt's keys. ``forced``: a person insisted
    on the promotion against the evidence.
    """

    state: str = "preparing"
    reason: str = ""
    message: str = ""
    attempt: int = 1
    generation: int = 1
    step: int = 0
    holds: dict[str, float] = {}
    elapsed: float = 0.0
    state_elapsed: float = 0.0
    step_elapsed: float = 0.0
    exposure: Exposure | None = None
    stage: int = 0
    peaks: dict[str, float] = {}
    detector: tuple[float, ...] | None = None
    seen: tuple[int, int] = (0, 0)
    extended: int = 0
    adapted: float = 0.0
    passed: tuple[int, ...] = ()
    approved: bool = False
    salt: str = ""
    forced: bool = False


class Rollout(msgspec.Struct, frozen=True):
    """All of it. ``stable``: the version that it began beside. ``budget_ms``, ``reserve_ms``: of
    the candidate's attempts (`hotswap.core.routing.Split`). ``instances``: stable's. ``apart``:
    the candidate's hosts are of another kind than stable's own, so that latency is compared with
    twins at every weight.
    """

    id: str
    spec: RolloutSpec
    steps: tuple[Step, ...]
    status: Status
    stable: str | None
    evidence: Evidence = Evidence()
    budget_ms: float = 1000.0
    reserve_ms: float = 10.0
    instances: int = 1
    apart: bool = False
    created_at: float = 0.0
    updated_at: float = 0.0
    idempotency_key: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def test(self) -> str:
        """The name of the present attempt, in tables and reports."""
        return f"{self.id}.{self.status.attempt}"

    @property
    def final(self) -> bool:
        """Whether nothing will happen to it of itself any more."""
        return self.status.state in FINAL


class Observation(msgspec.Struct, frozen=True):
    """What was seen before a tick.

    ``exposed``: what the route table in force shows of the candidate, None for nothing.
    ``active``: the stable version in force. ``ready``: the candidate is warm and there are enough
    warm hosts for the wanted exposure; ``lacking`` says what is missing. ``load_error``: why the
    candidate cannot be loaded. ``restarts``: how often its processes died in this attempt.
    ``breaker``: why a worker took the candidate out. ``outage``: why nothing can be saved or
    read. ``blocked``: another rollout of the model runs. ``served``: (failures, requests) of the
    stable version so far, for the watch after the bake. ``target``: where going back would lead
    once the candidate is stable. ``rate``: requests a second, for the change detector.
    """

    exposed: Exposure | None = None
    active: str | None = None
    ready: bool = False
    lacking: str = ""
    load_error: str = ""
    restarts: int = 0
    breaker: str = ""
    outage: str = ""
    blocked: bool = False
    served: tuple[int, int] = (0, 0)
    target: str | None = None
    rate: float = 0.0
    readings: dict[str, Reading] = {}


class Decision(msgspec.Struct, frozen=True):
    """What should be from now on. ``moved``: more than clocks and counters changed, so that it
    belongs into the journal. ``analysis``: what it was decided by, None where none was needed.
    """

    status: Status
    moved: bool
    analysis: Analysis | None = None


def analysed(rollout: Rollout, seen: Observation) -> Analysis:
    """The evidence of the present attempt, judged."""
    return analyse(rollout.spec, rollout.evidence, seen.readings, rollout.status.peaks)
