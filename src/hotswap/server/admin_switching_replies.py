"""Switches and rollouts as one shape, and each model's condition: values made of control's values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from hotswap.core.drift_views import DriftView
from hotswap.core.histogram import quantile
from hotswap.core.rollout_views import EventView, RolloutView
from hotswap.core.stats import ModelStats
from hotswap.core.views import ModelView, OperationView, SwitchView, VersionView

#: Roles whose requests no client waits for.
_OFF_THE_PATH: Final = frozenset({"shadow", "twin"})
_OPERATIONS: Final = {
    "preparing": "in_progress",
    "flipping": "in_progress",
    "done": "completed",
    "failed": "failed",
    "superseded": "aborted",
    "aborted": "aborted",
}
_PHASES: Final = {
    "Paused": "paused",
    "Healthy": "completed",
    "Completed": "completed",
    "RolledBack": "rolled_back",
    "Failed": "failed",
    "Degraded": "failed",
}
#: Pauses that end by themselves, when what is missing is back.
_PASSING: Final = frozenset({"capacity", "store", "metrics_outage"})
#: Columns of a model that have drifted and are each an alert, at most.
_DRIFTED: Final = 20
#: Ways back that a person chose.
_CHOSEN: Final = frozenset({"aborted", "superseded", "user"})


class SwitchOperation(msgspec.Struct, frozen=True):
    """A switch, a rollback or a rollout. ``operation_id`` of a rollout is the rollout's id.

    ``state``: in_progress, paused, completed, failed, aborted or rolled_back; ``phase`` is the
    rollout's own. ``reason`` in a word, ``message`` in a sentence. ``progress``: percent of the
    steps that are behind it. Times are Unix times; milliseconds as in `SwitchView`.
    """

    operation_id: str
    kind: str
    model: str
    from_: str | None = msgspec.field(name="from")
    to: str
    strategy: str
    state: str
    reason: str
    message: str
    progress: float
    started_at: float | None = None
    finished_at: float | None = None
    phase: str = ""
    weights: dict[str, float] = {}
    revision: int | None = None
    prepare_ms: float | None = None
    flip_ms: float | None = None


class SwitchOperations(msgspec.Struct, frozen=True):
    """Switches, rollbacks and rollouts, newest first."""

    operations: list[SwitchOperation]


class RefusedOperation(msgspec.Struct, frozen=True):
    """Not possible in the present state: why, and the operation as it is now."""

    error: str
    operation: SwitchOperation


class VersionCondition(msgspec.Struct, frozen=True):
    """One version's state and what became of its requests since the server began.

    ``error_rate`` of 1 and ``p99_ms`` are null without requests.
    """

    version: str
    state: str
    role: str
    weight: float
    reason: str
    requests: int
    errors: int
    error_rate: float | None
    p99_ms: float | None


class ModelCondition(msgspec.Struct, frozen=True):
    """One model. ``healthy``: its active version is ready; if not, ``reason`` says why.

    The numbers are of all versions together.
    """

    model: str
    healthy: bool
    reason: str
    active: str | None
    requests: int
    errors: int
    error_rate: float | None
    p99_ms: float | None
    versions: list[VersionCondition]


class Conditions(msgspec.Struct, frozen=True):
    """Each model's condition."""

    models: list[ModelCondition]


class Alert(msgspec.Struct, frozen=True):
    """Something that a person should know. ``severity``: critical, warning or info.

    ``rollout``: the id of the rollout that it is about, if it is about one.
    """

    severity: str
    model: str
    message: str
    at: float
    reason: str = ""
    rollout: str | None = None


class Alerts(msgspec.Struct, frozen=True):
    """Alerts, newest first."""

    alerts: list[Alert]


class SwitchingConfig(msgspec.Struct, frozen=True):
    """What is done unless something else is asked for.

    ``strategies``: each strategy's config; ``rollout``: the other keys of a rollout's body;
    ``server``: where it listens and keeps things.
    """

    strategies: dict[str, dict[str, Any]]
    rollout: dict[str, Any]
    server: dict[str, Any]


class RequestCounts(msgspec.Struct, frozen=True):
    """Requests and how many of them failed."""

    requests: int
    errors: int


class RolloutCounts(msgspec.Struct, frozen=True):
    """How many rollouts are in each phase, and how many have each reason."""

    phases: dict[str, int]
    reasons: dict[str, int]


class SwitchingStats(msgspec.Struct, frozen=True):
    """``switches`` by model and result; ``seconds``: each model's mean from the command to the
    flip; ``requests`` by model and version.
    """

    switches: dict[str, dict[str, int]]
    seconds: dict[str, float]
    rollouts: RolloutCounts
    requests: dict[str, dict[str, RequestCounts]]


SWITCHING_REPLIES: Final[tuple[type[msgspec.Struct], ...]] = (
    SwitchOperations,
    SwitchOperation,
    RefusedOperation,
    Conditions,
    ModelCondition,
    Alerts,
    SwitchingConfig,
    SwitchingStats,
)


def of_rollout(view: RolloutView) -> SwitchOperation:
    """A rollout as an operation."""
    state = _PHASES.get(view.phase, "failed" if view.final else "in_progress")
    if state == "completed" and not view.final:  # promoted, and watched
        state = "in_progress"
    if state == "rolled_back" and view.reason in _CHOSEN:
        state = "aborted"
    behind = sum(step.state in ("done", "skipped") for step in view.steps)
    progress = 100.0 * behind / len(view.steps) if view.steps else 0.0
    return SwitchOperation(
        operation_id=view.id,
        kind="rollout",
        model=view.model,
        from_=view.stable,
        to=view.version,
        strategy=view.strategy,
        state=state,
        reason=view.reason,
        message=view.message,
        progress=100.0 if state == "completed" else round(progress, 1),
        started_at=view.created_at,
        finished_at=view.updated_at if view.final else None,
        phase=view.phase,
        weights=view.weights,
    )


def of_operation(view: OperationView) -> SwitchOperation:
    """A switch or a rollback as an operation."""
    state = _OPERATIONS.get(view.state, view.state)
    return SwitchOperation(
        operation_id=view.id,
        kind=view.kind,
        model=view.model,
        from_=view.from_version,
        to=view.version,
        strategy="immediate",
        state=state,
        reason=view.state if state in ("failed", "aborted") else "",
        message=view.reason,
        progress=100.0 if state == "completed" else 0.0,
        started_at=view.created_at,
        finished_at=view.finished_at,
        revision=view.revision,
        prepare_ms=view.prepare_ms,
        flip_ms=view.flip_ms,
    )


def of_switch(view: SwitchView, model: str) -> SwitchOperation:
    """The answer to a switch as an operation."""
    return SwitchOperation(
        operation_id=view.operation_id,
        kind="switch",
        model=model,
        from_=view.from_,
        to=view.to,
        strategy="immediate",
        state="completed",
        reason="",
        message="",
        progress=100.0,
        revision=view.revision,
        prepare_ms=view.prepare_ms,
        flip_ms=view.flip_ms,
    )


def merged(
    operations: Iterable[OperationView], rollouts: Iterable[RolloutView]
) -> list[SwitchOperation]:
    """Switches, rollbacks and rollouts, newest first."""
    flips = [of_operation(view) for view in operations if view.kind in ("switch", "rollback")]
    both = [*flips, *map(of_rollout, rollouts)]
    return sorted(both, key=lambda each: each.started_at or 0.0, reverse=True)


def condition(model: ModelView, stats: Iterable[ModelStats]) -> ModelCondition:
    """A model's condition, from what all workers have counted."""
    own = [s for s in stats if s.model == model.name and s.role not in _OFF_THE_PATH]
    active = next((v for v in model.versions if v.version == model.active), None)
    if active is None:
        reason = "no version is active"
    elif active.state != "READY":
        reason = active.reason or f"version {active.version} is {active.state}"
    else:
        reason = ""
    return ModelCondition(
        model.name,
        not reason,
        reason,
        model.active,
        *_numbers(own),
        versions=[_version(v, [s for s in own if s.version == v.version]) for v in model.versions],
    )


def _version(view: VersionView, stats: Sequence[ModelStats]) -> VersionCondition:
    return VersionCondition(
        view.version, view.state, view.role, view.weight, view.reason, *_numbers(stats)
    )


def _numbers(stats: Sequence[ModelStats]) -> tuple[int, int, float | None, float | None]:
    """Requests, errors, error rate, p99 in milliseconds."""
    errors = sum(sum(each.errors.values()) for each in stats)
    requests = errors + sum(each.success for each in stats)
    latency: Counter[int] = Counter()
    for each in stats:
        latency.update(each.latency)
    p99 = quantile(latency, 0.99)
    rate = errors / requests if requests else None
    return requests, errors, rate, None if p99 is None else p99 / 1e6


def request_counts(stats: Iterable[ModelStats]) -> dict[str, dict[str, RequestCounts]]:
    """Requests by model and version."""
    groups: dict[tuple[str, str], list[ModelStats]] = {}
    for each in stats:
        if each.role not in _OFF_THE_PATH:
            groups.setdefault((each.model, each.version), []).append(each)
    found: dict[str, dict[str, RequestCounts]] = {}
    for (model, version), group in sorted(groups.items()):
        requests, errors, *_ = _numbers(group)
        found.setdefault(model, {})[version] = RequestCounts(requests, errors)
    return found


def alerts_of(
    events: Iterable[EventView],
    rollouts: Iterable[RolloutView],
    drifts: Iterable[DriftView] = (),
) -> list[Alert]:
    """Alerts among the events, rollouts that went wrong or wait for a person, and columns that have
    drifted and are still away; newest first.
    """
    found = [
        Alert(
            str(event.data.get("severity", "warning")),
            event.model,
            event.message,
            event.at,
            str(event.data.get("reason", "")),
            event.data.get("rollout"),
        )
        for event in events
        if event.kind == "alert"
    ]
    for view in rollouts:
        severity = _severity(view)
        if severity:
            message = view.message or f"{view.version} is {view.phase}"
            found.append(
                Alert(severity, view.model, message, view.updated_at, view.reason, view.id)
            )
    for drift in drifts:
        found += [
            Alert(
                "warning", drift.model, f"{each.column} drifted from the reference ({each.cause})",
                each.alarmed_since or 0.0, "drift",
            )
            for each in drift.alarmed()[:_DRIFTED]
        ]  # fmt: skip
    return sorted(found, key=lambda alert: alert.at, reverse=True)


def _severity(view: RolloutView) -> str:
    if view.phase in ("Failed", "Degraded"):
        return "critical"
    if view.phase == "RolledBack":
        return "info" if view.reason in _CHOSEN else "critical"
    if view.phase == "Paused" and view.reason not in _PASSING:
        return "info" if view.reason in _CHOSEN else "warning"
    return ""
