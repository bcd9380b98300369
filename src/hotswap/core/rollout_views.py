"""What is shown of rollouts: values only; JSON by `msgspec`."""

from __future__ import annotations

from typing import Any

import msgspec


class ArmView(msgspec.Struct, frozen=True):
    """One arm of one metric. ``n``: requests (keyed traffic: units, pairs where both saw them);
    ``events``: errors and the like, None where there are none to count; ``value``: rate, quantile
    in milliseconds, … in the metric's own unit, None without data.
    """

    version: str
    n: int
    events: int | None = None
    value: float | None = None


class MetricView(msgspec.Struct, frozen=True):
    """One guardrail or objective as it stands.

    ``arms`` by role (stable, candidate). ``estimate`` and ``interval``: the ``comparison``
    (ratio, difference or level) of candidate to stable, the interval a confidence sequence: it
    may be looked at at any time (a side that is open is None). ``margin``: up to which the candidate counts as no worse.
    ``evidence``: against "no worse" (20 is 20:1); ``proof``: for "within the margin", the
    greatest so far; ``needed``: what both must reach. ``verdict``: pass, fail, insufficient,
    error or cancelled. ``role``: guardrail, objective or tripwire.
    """

    name: str
    arms: dict[str, ArmView]
    estimate: float | None
    interval: tuple[float | None, float | None] | None
    n: int
    margin: float | None
    evidence: float
    verdict: str
    proof: float = 0.0
    needed: float = 20.0
    comparison: str = "ratio"
    role: str = "guardrail"
    dry_run: bool = False
    sentence: str = ""


class StepView(msgspec.Struct, frozen=True):
    """One step. ``state``: done, current, waiting or skipped; ``weight`` in percent, of the stage
    in which the step is. ``seconds``: its least duration; ``requests``: how many of the candidate
    it waits for.
    """

    label: str
    kind: str
    state: str
    weight: float
    seconds: float = 0.0
    requests: int = 0


class HistoryView(msgspec.Struct, frozen=True):
    """One line of a rollout's history. ``at``: Unix time, for display."""

    at: float
    phase: str
    reason: str
    message: str
    step: int


class PointView(msgspec.Struct, frozen=True):
    """The evidence at one moment, ``elapsed`` seconds after the attempt began: by metric, the odds
    against the candidate and the proof for it. ``weight`` in percent.
    """

    elapsed: float
    attempt: int
    weight: float
    against: dict[str, float] = {}
    proof: dict[str, float] = {}


class PairView(msgspec.Struct, frozen=True):
    """Requests that both versions saw, in shadow or as a pair, over all stages.

    Of ``total``, both gave a valid answer to ``both``, of which ``agree`` were the same;
    ``worse``: only the candidate failed, ``better``: only stable did. ``difference``: the mean
    absolute difference of numeric answers, ``largest`` the greatest. ``confusion``: how often
    stable said one label and the candidate another, {stable's: {candidate's: count}}.
    """

    total: int
    both: int
    agree: int
    worse: int
    better: int
    neither: int
    difference: float | None
    largest: float | None
    confusion: dict[str, dict[str, int]] = {}


class RolloutView(msgspec.Struct, frozen=True):
    """One rollout.

    ``weights``: percent of the unpinned requests that each version answers, by version.
    ``counts``: candidate_requests, stable_requests, candidate_failures, fallbacks, pairs,
    mirrored, dropped, excluded. ``elapsed_seconds`` since it began, ``step_seconds`` since its step
    began, both without the time that control was away. Times are Unix times. ``series``: how the
    evidence went, for plots. ``pairs``: what both versions said to the same requests, None before
    there are any. ``idempotency_key``: what it was started with, or "".
    """

    id: str
    model: str
    version: str
    stable: str | None
    strategy: str
    phase: str
    reason: str
    message: str
    generation: int
    attempt: int
    step: int
    steps: tuple[StepView, ...]
    weights: dict[str, float]
    metrics: tuple[MetricView, ...]
    history: tuple[HistoryView, ...]
    counts: dict[str, int]
    elapsed_seconds: float
    step_seconds: float
    bake_seconds: float
    alpha: float
    final: bool
    created_at: float
    updated_at: float
    spec: dict[str, Any]
    warnings: tuple[str, ...] = ()
    series: tuple[PointView, ...] = ()
    pairs: PairView | None = None
    idempotency_key: str = ""


class StepPlan(msgspec.Struct, frozen=True):
    """What a step of a plan can see at the current traffic.

    ``requests``: of both arms, needed to prove the candidate no worse (steps that prove) or to
    see ``regression`` happen; None if it cannot be told. ``chance``: of catching the regression
    within the step's least duration, None without traffic.
    """

    label: str
    kind: str
    weight: float
    seconds: float
    requests: int | None = None
    chance: float | None = None
    warning: str = ""


class PlanView(msgspec.Struct, frozen=True):
    """A dry run's answer. ``shortest_seconds``: the shortest duration, without waiting for proof;
    ``with_proof_seconds``: with it, at the current traffic, None if that cannot be told.
    ``false_alarm``: the most likely a candidate that is no worse is rolled back. ``regression``:
    the example that chances are given for, in words.
    """

    model: str
    version: str
    stable: str | None
    strategy: str
    steps: tuple[StepPlan, ...]
    shortest_seconds: float
    with_proof_seconds: float | None
    requests_per_second: float
    error_rate: float
    false_alarm: float
    regression: str
    warnings: tuple[str, ...]
    spec: dict[str, Any]


class JournalView(msgspec.Struct, frozen=True):
    """One entry of a rollout's journal. ``kind``: started, decided, commanded.

    ``record`` holds what was known and what was decided, and the version of the formulas: enough
    to decide again (`hotswap.core.verification`).
    """

    number: int
    at: float
    kind: str
    phase: str
    reason: str
    message: str
    generation: int
    step: int
    who: str = ""
    command: str = ""
    why: str = ""
    formula: str = ""
    record: dict[str, Any] = {}


class EventView(msgspec.Struct, frozen=True):
    """Something that happened. ``id`` grows; ``kind``: rollout, switch, operation, version, alert, drift."""

    id: int
    at: float
    kind: str
    model: str
    message: str
    data: dict[str, Any] = {}
