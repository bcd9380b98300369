"""Rollouts in memory that go on when they are told to: for tests of what stands in front of them."""

from __future__ import annotations

import abc
import math
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from hotswap.core.plan import (
    Bake,
    End,
    Hold,
    Mirror,
    Pair,
    Promote,
    Requests,
    SetWeight,
    Step,
    compile_steps,
    kind,
    label,
)
from hotswap.core.rollout_views import (
    ArmView,
    EventView,
    HistoryView,
    JournalView,
    MetricView,
    PlanView,
    RolloutView,
    StepPlan,
    StepView,
)
from hotswap.core.strategy import RolloutSpec, parse
from hotswap.core.views import ModelView, VersionView
from hotswap.errors import Conflict, HotswapError, NotFound
from hotswap.testing.fake_events import FakeEvents

FINAL: Final = frozenset({"Healthy", "Completed", "RolledBack", "Failed", "Degraded"})
COMMANDS: Final = ("promote", "pause", "resume", "abort", "retry", "skip")
#: In which phases each command is legal.
LEGAL: Final = {
    "promote": {"Progressing", "Paused"},
    "pause": {"Preparing", "Progressing"},
    "resume": {"Paused"},
    "abort": {"Preparing", "Progressing", "Paused", "Baking"},
    "retry": {"RolledBack", "Failed"},
    "skip": {"Preparing", "Progressing", "Paused", "Baking"},
}


class FakeRollouts(abc.ABC):
    """The part of a control service in memory that is about rollouts and events.

    A rollout stays in its step until a command, or `see`, moves it. ``calls`` are the commands
    that were given, in order.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.happenings = FakeEvents()
        self.views: dict[str, RolloutView] = {}
        self.plans: dict[str, tuple[Step, ...]] = {}
        self.journals: dict[str, list[JournalView]] = {}
        self.started: dict[str, str] = {}
        self.commanded: set[tuple[str, str]] = set()

    @abc.abstractmethod
    def _fail(self) -> None:
        """Raise what is to be raised instead of answering."""

    @abc.abstractmethod
    def _model(self, name: str) -> ModelView:
        """The model. Raises `NotFound`."""

    @abc.abstractmethod
    def _version(self, model: str, version: str) -> VersionView:
        """The version. Raises `NotFound`."""

    @abc.abstractmethod
    def _warm(self, model: str, version: str, role: str) -> None:
        """Load it. Raises `LoadError`."""

    @abc.abstractmethod
    def _activate(self, model: str, version: str) -> str | None:
        """Make it the one that answers; which was it before."""

    # --- what control offers

    async def start_rollout(self, body: dict[str, Any], *, who: str = "") -> RolloutView:
        """Start it; it stays in its first step."""
        self._fail()
        self.calls.append(("start_rollout", body, who))
        spec = parse(body)
        key = body.get("idempotency_key")
        if key in self.started:
            return self.views[self.started[key]]
        self._check(spec)
        id = f"r-{len(self.views) + 1}"
        if key is not None:
            self.started[key] = id
        waits = self._make_room(spec)
        model = self._model(spec.model)
        self.plans[id] = compile_steps(spec)
        view = RolloutView(
            id, spec.model, spec.version, model.active, spec.strategy, "Preparing", "", "", 0, 1, 0,
            (), {}, (), (), {}, 0.0, 0.0, spec.bake_seconds, spec.alpha, False, 1.7e9, 1.7e9,
            msgspec.to_builtins(spec), idempotency_key=key or "",
        )  # fmt: skip
        self.views[id] = msgspec.structs.replace(view, metrics=(_unknown(view),), counts=_counts())
        if waits:
            return self._enter(id, "Preparing", "queued", "it waits for another rollout", who=who)
        try:
            self._warm(spec.model, spec.version, "candidate")
        except HotswapError as error:
            return self._enter(id, "Failed", "load", error.message, who=who)
        return self._move(id, 0, who=who)

    async def plan_rollout(self, body: dict[str, Any]) -> PlanView:
        """The steps, without any traffic to judge them by."""
        self._fail()
        spec = parse(body)
        self._check(spec)
        steps = self._shown(compile_steps(spec), 0)
        plans = tuple(StepPlan(s.label, s.kind, s.weight, s.seconds) for s in steps)
        return PlanView(
            model=spec.model,
            version=spec.version,
            stable=self._model(spec.model).active,
            strategy=spec.strategy,
            steps=plans,
            shortest_seconds=sum(step.seconds for step in steps),
            with_proof_seconds=None,
            requests_per_second=0.0,
            error_rate=0.0,
            false_alarm=spec.alpha,
            regression="twice the errors",
            warnings=("there is no traffic now",),
            spec=msgspec.to_builtins(spec),
        )

    async def rollouts(self, model: str | None = None) -> list[RolloutView]:
        """Newest first."""
        self._fail()
        return [v for v in reversed(self.views.values()) if model in (None, v.model)]

    async def rollout(self, id: str) -> RolloutView:
        """One of them."""
        self._fail()
        if id not in self.views:
            raise NotFound(f"there is no rollout '{id}'")
        return self.views[id]

    async def rollout_journal(self, id: str) -> list[JournalView]:
        """Oldest first."""
        await self.rollout(id)
        return self.journals[id]

    async def command_rollout(
        self,
        id: str,
        command: str,
        *,
        generation: int | None = None,
        idempotency_key: str | None = None,
        force: bool = False,
        why: str = "",
        who: str = "",
    ) -> RolloutView:
        """Carry a command out, if it is legal now."""
        view = await self.rollout(id)
        self.calls.append((command, id, generation, idempotency_key, force, why, who))
        if idempotency_key is not None and (id, idempotency_key) in self.commanded:
            return view
        if generation not in (None, view.generation):
            raise Conflict(
                f"rollout {id} is at generation {view.generation}, not {generation}: look again"
            )
        if view.phase not in LEGAL[command]:
            raise Conflict(f"rollout {id} cannot {command}: it is {view.phase}")
        if command == "promote" and not force and _failing(view):
            raise Conflict(f"rollout {id} cannot promote: the guardrail {_failing(view)} fails")
        if idempotency_key is not None:
            self.commanded.add((id, idempotency_key))
        return self._obey(view, command, who=who, why=why)

    def events(self, after: int | None = None) -> AsyncIterator[EventView]:
        """What happens from now on, or after that event, for ever."""
        return self.happenings.listen(after)

    def recent_events(self) -> list[EventView]:
        """Oldest first."""
        return list(self.happenings.kept)

    def rollout_gauges(self) -> list[RolloutView]:
        """Each model's latest rollout."""
        return list({view.model: view for view in self.views.values()}.values())

    def rollout_counters(self) -> dict[tuple[str, str, str, str], int]:
        """Rollouts that ended, by (model, strategy, phase, reason)."""
        ended = [view for view in self.views.values() if view.final]
        return dict(Counter((v.model, v.strategy, v.phase, v.reason) for v in ended))

    # --- what tests do with them

    def see(self, id: str, **changes: Any) -> RolloutView:
        """Let something come of a rollout: any fields of its view, such as phase and metrics."""
        view = msgspec.structs.replace(self.views[id], **changes)
        self.views[id] = view
        return self._enter(id, view.phase, view.reason, view.message)

    # --- the machine

    def _check(self, spec: RolloutSpec) -> None:
        self._version(spec.model, spec.version)
        if self._model(spec.model).active == spec.version:
            raise Conflict(f"version '{spec.version}' of '{spec.model}' is active already")
        if not spec.force and any(
            (v.model, v.version, v.phase) == (spec.model, spec.version, "RolledBack")
            for v in self.views.values()
        ):
            raise Conflict(
                f"version '{spec.version}' of '{spec.model}' was rolled back: give force to try "
                "it again"
            )

    def _make_room(self, spec: RolloutSpec) -> bool:
        """What ``on_running`` says; whether to wait."""
        running = [v for v in self.views.values() if v.model == spec.model and not v.final]
        if running and spec.on_running == "refuse":
            raise Conflict(
                f"rollout {running[0].id} of '{spec.model}' is running: abort it, or give "
                "on_running 'replace' or 'queue'"
            )
        if spec.on_running == "replace":
            for view in running:
                self._back(view, "superseded", f"version {spec.version} takes its place")
        return bool(running) and spec.on_running == "queue"

    def _obey(self, view: RolloutView, command: str, **by: str) -> RolloutView:
        by["command"] = command
        if command == "pause":
            return self._enter(view.id, "Paused", "user", "paused by a person", **by)
        if command == "resume":
            return self._enter(view.id, "Progressing", "", "goes on", **by)
        if command == "abort":
            return self._back(view, "aborted", "aborted by a person", **by)
        if command == "retry":
            again = msgspec.structs.replace(view, attempt=view.attempt + 1)
            self.views[view.id] = again
            return self._move(view.id, 0, **by)
        if command == "promote":
            kinds = [isinstance(step, Promote) for step in self.plans[view.id]]
            return self._move(view.id, kinds.index(True) if True in kinds else len(kinds), **by)
        return self._move(view.id, view.step + 1, **by)

    def _move(self, id: str, step: int, **by: str) -> RolloutView:
        """Go to a step, through those that take no time."""
        steps = self.plans[id]
        while step < len(steps) and isinstance(steps[step], SetWeight | Mirror | Pair | Promote):
            if isinstance(steps[step], Promote):
                self._activate(self.views[id].model, self.views[id].version)
            step += 1
        self.views[id] = msgspec.structs.replace(self.views[id], step=step)
        if step == len(steps):
            return self._enter(id, "Healthy", "", "promoted", **by)
        if isinstance(steps[step], End):
            return self._enter(id, "Completed", "", "over, with nothing to promote", **by)
        phase = "Baking" if isinstance(steps[step], Bake) else "Progressing"
        return self._enter(id, phase, "", label(steps[step]), **by)

    def _back(self, view: RolloutView, reason: str, message: str, **by: str) -> RolloutView:
        if view.phase == "Baking" and view.stable is not None:
            self._activate(view.model, view.stable)
        return self._enter(view.id, "RolledBack", reason, message, **by)

    def _enter(self, id: str, phase: str, reason: str, message: str, **by: str) -> RolloutView:
        """Into a phase: seen, journalled and told."""
        view = self.views[id]
        generation, at = view.generation + 1, view.updated_at + 1
        line = HistoryView(at, phase, reason, message, view.step)
        steps = self._shown(self.plans[id], view.step)
        view = msgspec.structs.replace(
            view, phase=phase, reason=reason, message=message, generation=generation, steps=steps,
            weights=self._weights(view, phase), history=(*view.history, line),
            final=phase in FINAL, updated_at=at, elapsed_seconds=at - view.created_at,
        )  # fmt: skip
        self.views[id] = view
        journal = self.journals.setdefault(id, [])
        kind = "commanded" if by.get("command") else "decided" if journal else "started"
        record = {"evidence": view.metrics[0].evidence}
        journal.append(
            JournalView(
                len(journal) + 1, at, kind, phase, reason, message, generation, view.step,
                formula="fake", record=record, **by,
            )
        )  # fmt: skip
        data = {"rollout": id, "version": view.version, "phase": phase, "reason": reason}
        self.happenings.emit("rollout", view.model, f"{id} is {phase}: {message}", data)
        return view

    def _weights(self, view: RolloutView, phase: str) -> dict[str, float]:
        if phase in ("Baking", "Healthy"):
            return {view.version: 100.0}
        share = 0.0
        if phase in ("Progressing", "Paused"):
            for step in self.plans[view.id][: view.step + 1]:
                share = step.weight / 100 if isinstance(step, SetWeight | Pair) else share
        others = {view.stable: 100.0 - share} if view.stable is not None else {}
        return {**others, view.version: share}

    @staticmethod
    def _shown(steps: tuple[Step, ...], current: int) -> tuple[StepView, ...]:
        shown, weight = [], 0.0
        for number, step in enumerate(steps):
            if isinstance(step, SetWeight | Pair):
                weight = step.weight / 100
            elif isinstance(step, Promote):
                weight = 100.0
            state = "done" if number < current else "current" if number == current else "waiting"
            seconds = step.seconds if isinstance(step, Hold | Bake) else 0.0
            requests = step.count if isinstance(step, Requests) else 0
            shown.append(StepView(label(step), kind(step), state, weight, seconds, requests))
        return tuple(shown)


def _failing(view: RolloutView) -> str:
    return next((metric.name for metric in view.metrics if metric.verdict == "fail"), "")


def _counts() -> dict[str, int]:
    names = (
        "candidate_requests", "stable_requests", "candidate_failures", "fallbacks", "pairs",
        "mirrored", "dropped", "excluded",
    )  # fmt: skip
    return dict.fromkeys(names, 0)


def _unknown(view: RolloutView) -> MetricView:
    """Errors before any request: the interval is without end."""
    arms = {"candidate": ArmView(view.version, 0, 0)}
    if view.stable is not None:
        arms["stable"] = ArmView(view.stable, 0, 0)
    return MetricView(
        "error_rate", arms, None, (0.0, math.inf), 0, 1.5, 1.0, "insufficient",
        sentence="error_rate: no requests yet.",
    )  # fmt: skip
