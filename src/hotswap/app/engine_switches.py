"""How an engine's versions take over: switches at once, and rollouts that decide by evidence."""

from __future__ import annotations

import asyncio
import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, overload

import msgspec

from hotswap.app.engine_control import ControlThread
from hotswap.app.engine_service import EngineService
from hotswap.core.rollout_views import JournalView, PlanView, RolloutView
from hotswap.core.strategy import STRATEGIES
from hotswap.core.views import OperationView, SwitchView
from hotswap.errors import BadInput, ConfigError, NotFound
from hotswap.serving.inline import InlinePlane

_RUNNING = ("preparing", "flipping")
_LOOK_SECONDS = 0.05

#: What an operation is named by: what `Switches.start_switch` gave, or its id.
Operation = OperationView | SwitchView | RolloutView | str


class SwitchingStrategyType(enum.StrEnum):
    """How a new version takes over."""

    IMMEDIATE = "immediate"
    """All requests at once, as soon as the version is loaded and validated."""
    GRADUAL = "gradual"
    """In equal steps over a given time, held or taken back by the guardrails."""
    CANARY = "canary"
    """A few requests first, then step by step, once it is shown to be no worse."""
    AB_TEST = "ab_test"
    """A fixed share for a given time, and a verdict on one metric."""
    SHADOW = "shadow"
    """Copies of requests, whose answers are only compared."""
    CHAMPION_CHALLENGER = "champion_challenger"
    """Both versions see every request, and their answers are compared pair by pair."""
    BANDIT = "bandit"
    """The share follows the evidence."""


class Switches(ABC):
    """The part of `hotswap.Engine` that starts, watches and ends switches and rollouts."""

    _plane: InlinePlane

    @abstractmethod
    def _started(self) -> tuple[ControlThread, EngineService]:
        """The running engine's control. Raises where it was not started."""

    @abstractmethod
    def _only(self) -> str:
        """The only model's name. Raises `BadInput` naming the choices."""

    # --- begin

    @overload
    async def start_switch(
        self,
        target_version: str,
        strategy_type: Literal[SwitchingStrategyType.IMMEDIATE, "immediate"] = ...,
        strategy_config: Mapping[str, Any] | None = ...,
        model: str | None = ...,
    ) -> OperationView: ...

    @overload
    async def start_switch(
        self,
        target_version: str,
        strategy_type: SwitchingStrategyType | str = ...,
        strategy_config: Mapping[str, Any] | None = ...,
        model: str | None = ...,
        **more: Any,
    ) -> OperationView | RolloutView: ...

    async def start_switch(
        self,
        target_version: str,
        strategy_type: SwitchingStrategyType | str = SwitchingStrategyType.IMMEDIATE,
        strategy_config: Mapping[str, Any] | None = None,
        model: str | None = None,
        **more: Any,
    ) -> OperationView | RolloutView:
        """Let another version of a model take over.

        ``IMMEDIATE`` alone switches, and returns when every new request is answered by the
        version: while it is being loaded, `get_switching_status` shows the operation and
        `abort_switch` ends it; it raises what ``registry.switch_model`` raises. Any other
        strategy, or ``more``, starts a rollout and returns at once: `wait_switch` waits for it.

        ``strategy_config`` is the strategy's own (for a canary ``initial_percentage``, …).
        ``more`` are the other keys of a rollout: ``steps``, ``guardrails``, ``objectives``,
        ``alpha``, ``bake_seconds``, ``watch_seconds``, ``on_running``, ``on_insufficient``,
        ``min_requests``, ``budget_ms``, ``key_input``, ``seed``, ``force``, ``idempotency_key``.
        ``model`` may be None where only one is registered.

        Raises `ConfigError` for a strategy that does not exist, `BadInput` for settings that it
        does not take, `NotFound`, and `Conflict` beside a running rollout.
        """
        strategy = _strategy(strategy_type)
        control, service = self._started()
        if strategy is SwitchingStrategyType.IMMEDIATE and not more:
            if strategy_config:
                names = ", ".join(repr(str(name)) for name in strategy_config)
                raise ConfigError(
                    f"the strategy {strategy.value!r} takes no settings: remove {names}"
                )
            return await control.call(service.switched(model, target_version, False))
        body = self._body(target_version, strategy, strategy_config, model, more)
        return await control.call(service.start_rollout(body, who="program"))

    async def plan_switch(
        self,
        target_version: str,
        strategy_type: SwitchingStrategyType | str = SwitchingStrategyType.CANARY,
        strategy_config: Mapping[str, Any] | None = None,
        model: str | None = None,
        **more: Any,
    ) -> PlanView:
        """What `start_switch` with these arguments would do, without doing it: its steps, the
        shortest duration, the requests that each step needs, the odds of a false alarm.
        """
        body = self._body(target_version, _strategy(strategy_type), strategy_config, model, more)
        control, service = self._started()
        return await control.call(service.plan_rollout(body))

    def _body(
        self,
        version: str,
        strategy: SwitchingStrategyType,
        config: Mapping[str, Any] | None,
        model: str | None,
        more: Mapping[str, Any],
    ) -> dict[str, Any]:
        twice = {"version", "strategy", "config"} & more.keys()
        if twice:
            raise BadInput(f"{min(twice)!r} is an argument of its own: remove it")
        return {
            "model": model if model is not None else self._only(),
            "version": version,
            "strategy": strategy.value,
            "config": dict(config or {}),
            **more,
        }

    # --- steer

    @overload
    async def abort_switch(self, operation: OperationView | SwitchView) -> OperationView: ...

    @overload
    async def abort_switch(self, operation: RolloutView) -> RolloutView: ...

    @overload
    async def abort_switch(self, operation: Operation) -> OperationView | RolloutView: ...

    async def abort_switch(self, operation: Operation) -> OperationView | RolloutView:
        """Give up a switch that is still being prepared, or take back a rollout; what answered
        before goes on. No request is answered by a rollout's candidate once this returned.

        Raises `NotFound` for an unknown operation, `Conflict` for one that is over.
        """
        id = _id(operation)
        control, service = self._started()
        if await control.call(_is_rollout(service, id)):
            return await self.command(id, "abort")
        return await control.call(service.abort(id))

    async def command(
        self,
        rollout: Operation,
        command: str,
        *,
        generation: int | None = None,
        force: bool = False,
        why: str = "",
    ) -> RolloutView:
        """``command``: promote, pause, resume, abort, retry or skip; ``generation``, if given,
        must be the rollout's. Raises `NotFound`, and `Conflict` where it is illegal now.
        """
        control, service = self._started()
        return await control.call(
            service.command_rollout(
                _id(rollout), command, generation=generation, force=force, why=why, who="program"
            )
        )

    async def wait_switch(
        self, operation: Operation, *phases: str, timeout: float | None = None
    ) -> OperationView | RolloutView:
        """Wait until it is over, or in one of ``phases`` (``"Progressing"``, ``"Baking"``, …). A
        promoted version that is only watched any more (``"Healthy"``) counts as over.

        Raises TimeoutError after ``timeout`` seconds, `NotFound` for an unknown operation.
        """
        id = _id(operation)
        control, service = self._started()
        async with asyncio.timeout(timeout):
            return await control.call(_reached(service, id, phases))

    async def bring_in(self, model: str | None = None) -> None:
        """Load a model's stable version within this process, if a rollout left it in its own.

        It is then called without a hop, and is isolated no more. No request fails meanwhile.
        Raises `Conflict` while a rollout of the model runs, and what loading raises.
        """
        control, service = self._started()
        await control.call(service.bring_in(model if model is not None else self._only()))

    async def rollback(self, model: str | None = None) -> SwitchView:
        """Back to the latest version that was active before and was not rolled back from; a
        running rollout is aborted.

        Raises `Conflict` if there is none.
        """
        control, service = self._started()
        return await control.call(service.rollback(model if model is not None else self._only()))

    # --- look

    def rollouts(self, model: str | None = None) -> list[RolloutView]:
        """All rollouts, or a model's, newest first, without their metrics. From any thread."""
        control, service = self._started()
        return control.wait(service.rollouts(model))

    def rollout(self, rollout: Operation) -> RolloutView:
        """One rollout with its metrics. From any thread. Raises `NotFound`."""
        control, service = self._started()
        return control.wait(service.rollout(_id(rollout)))

    def journal(self, rollout: Operation) -> list[JournalView]:
        """Every decision and command of a rollout with its reasons, oldest first. From any thread."""
        control, service = self._started()
        return control.wait(service.rollout_journal(_id(rollout)))

    def get_switching_status(self, operation: Operation | None = None) -> dict[str, Any]:
        """What switches and rollouts there are, newest first, as plain values. From any thread.

        ``{"switching": bool, "models": {name: {"active", "previous", "revision"}},
        "operations": [...], "rollouts": [...]}``. With ``operation`` that one alone. A switch has
        its ``id``, ``kind``, ``model``, ``version``, ``state`` (preparing, flipping, done,
        failed, superseded, aborted), ``reason`` and times; a rollout its ``id``, ``model``,
        ``version``, ``phase``, ``reason``, ``message``, ``weights``, ``steps``, ``metrics``,
        ``counts``, ``history`` (see `hotswap.core.rollout_views.RolloutView`). Raises `NotFound`.
        """
        control, service = self._started()
        if operation is not None:
            one: dict[str, Any] = msgspec.to_builtins(
                control.wait(_operation(service, _id(operation)))
            )
            return one
        operations = control.wait(service.operations())
        rollouts = control.wait(service.rollouts())
        return {
            "switching": any(each.state in _RUNNING for each in operations)
            or any(not each.final and each.phase != "Healthy" for each in rollouts),
            "models": {
                view.name: {
                    "active": view.active, "previous": view.previous, "revision": view.revision,
                }
                for view in control.wait(service.models())
            },
            "operations": msgspec.to_builtins(operations),
            "rollouts": msgspec.to_builtins(rollouts),
        }  # fmt: skip

    def get_switcher_stats(self) -> dict[str, Any]:
        """How many switches there were and how long they took, and how rollouts ended.

        ``{"switches": {model: {result: count}}, "seconds": {model: mean seconds from the call to
        the flip}, "requests": [counters of each model, version and role], "rollouts":
        {model: {strategy: {phase: count}}}}``.
        """
        _, service = self._started()
        switches: dict[str, dict[str, int]] = {}
        for (model, result), count in service.switch_counters().items():
            switches.setdefault(model, {})[result] = count
        seconds = {m: total / n for m, (n, total) in service.switch_seconds().items() if n}
        ended: dict[str, dict[str, dict[str, int]]] = {}
        for (model, strategy, phase, _), count in service.rollout_counters().items():
            phases = ended.setdefault(model, {}).setdefault(strategy, {})
            phases[phase] = phases.get(phase, 0) + count
        requests = msgspec.to_builtins(self._plane.stats(), str_keys=True)
        return {
            "switches": switches, "seconds": seconds, "requests": requests, "rollouts": ended,
        }  # fmt: skip


def _strategy(given: SwitchingStrategyType | str) -> SwitchingStrategyType:
    try:
        return SwitchingStrategyType(given)
    except ValueError:
        known = ", ".join(repr(each) for each in STRATEGIES)
        raise ConfigError(f"the strategy {str(given)!r} does not exist here: use {known}") from None


def _id(operation: Operation) -> str:
    if isinstance(operation, OperationView | RolloutView):
        return operation.id
    return operation.operation_id if isinstance(operation, SwitchView) else operation


async def _is_rollout(service: EngineService, id: str) -> bool:
    try:
        await service.rollout(id)
    except NotFound:
        return False
    return True


async def _operation(service: EngineService, id: str) -> OperationView | RolloutView:
    try:
        return await service.rollout(id)
    except NotFound:
        return await service.operation(id)


async def _reached(
    service: EngineService, id: str, phases: tuple[str, ...]
) -> OperationView | RolloutView:
    """The operation once it is over or in one of these phases."""
    while True:
        found = await _operation(service, id)
        if isinstance(found, RolloutView):
            if found.final or found.phase in (*phases, "Healthy"):
                return found
        elif found.state not in _RUNNING or found.state in phases:
            return found
        await asyncio.sleep(_LOOK_SECONDS)


__all__ = ["Operation", "Switches", "SwitchingStrategyType"]
