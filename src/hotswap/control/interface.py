"""What the admin API, the page and the CLI's server side ask of control."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from hotswap.core.drift_views import DriftView
from hotswap.core.quality_views import Quality
from hotswap.core.registry_views import RegistryView
from hotswap.core.replay_views import Replay
from hotswap.core.rollout_views import EventView, JournalView, PlanView, RolloutView
from hotswap.core.stats import ModelStats
from hotswap.core.views import ModelView, OperationView, SwitchView, VersionView


class Control(Protocol):
    """Control's service. Every method raises hotswap errors: `NotFound`, `Conflict`, `BadInput`,
    `Forbidden`/`UntrustedCode`, `LoadError`, `OutOfMemory`, `StoreError`.
    """

    async def models(self) -> list[ModelView]: ...

    async def model(self, name: str) -> ModelView: ...

    async def register(
        self,
        model: str,
        uri: str,
        *,
        version: str | None = None,
        runtime: str | None = None,
        metadata: dict[str, Any] | None = None,
        changelog: str = "",
        in_place: bool = False,
        compile: str | None = None,
        who: str = "",
    ) -> VersionView:
        """Hash, copy and record a version (not activated). Without ``version``: the next vN."""
        ...

    async def remove_version(self, model: str, version: str) -> None: ...

    async def remove_model(self, model: str, *, force: bool = False) -> None:
        """`Conflict` while it has an active version, unless ``force`` takes it out of service."""
        ...

    async def load(self, model: str, version: str) -> OperationView:
        """Warm it without weight; answers when warm."""
        ...

    async def unload(self, model: str, version: str) -> OperationView: ...

    async def switch(
        self,
        model: str | None,
        version: str,
        *,
        force: bool = False,
        replace: bool = False,
        idempotency_key: str | None = None,
    ) -> SwitchView:
        """Answers when flipped. ``model`` None: the only model. ``replace``: a running rollout goes
        back first; ``force``: that, and whatever its signature.
        """
        ...

    async def rollback(self, model: str, *, idempotency_key: str | None = None) -> SwitchView: ...

    async def operations(self) -> list[OperationView]:
        """Newest first."""
        ...

    async def operation(self, id: str) -> OperationView: ...

    async def clear_cache(self) -> list[tuple[str, str]]:
        """Unload the resident versions without weight; which."""
        ...

    def stats(self) -> list[ModelStats]: ...

    def ready(self) -> tuple[bool, str]:
        """Whether the node is ready, and why not."""
        ...

    def info(self) -> dict[str, Any]:
        """Addresses (``data``, ``control``), version, pids, uptime_seconds, store, python."""
        ...

    def switch_counters(self) -> dict[tuple[str, str], int]:
        """Switches by (model, result), for metrics."""
        ...

    def switch_seconds(self) -> dict[str, tuple[int, float]]:
        """(count, total seconds from command to flip) by model, for metrics."""
        ...

    def record_counts(self) -> Mapping[str, Any] | None:
        """What became of records and labels, for metrics: ``lines, labels, failed, dropped``.

        None where nothing is recorded. Never raises.
        """
        ...

    # --- rollouts

    async def start_rollout(self, body: dict[str, Any], *, who: str = "") -> RolloutView:
        """Start it (see `hotswap.core.strategy.parse` for ``body``). `Conflict` beside a running one."""
        ...

    async def plan_rollout(self, body: dict[str, Any]) -> PlanView:
        """What `start_rollout` would do, without doing it."""
        ...

    async def rollouts(self, model: str | None = None) -> list[RolloutView]:
        """Newest first."""
        ...

    async def rollout(self, id: str) -> RolloutView: ...

    async def rollout_journal(self, id: str) -> list[JournalView]:
        """Oldest first."""
        ...

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
        """``command``: promote, pause, resume, abort, retry, skip. Raises `Conflict` telling the
        current state if it is illegal now or ``generation`` is not the rollout's.
        """
        ...

    async def abort_operation(self, operation: str) -> OperationView:
        """Give up a switch that is still preparing; `Conflict` if it is not."""
        ...

    async def registry(self) -> RegistryView:
        """The model registry that is followed; `NotFound` if none is."""
        ...

    def registry_hint(self) -> None:
        """Something may have changed in it: it is asked at once. `NotFound` if none is followed."""
        ...

    async def quality(
        self,
        model: str,
        *,
        since_seconds: float | None = None,
        until: float | None = None,
        versions: tuple[str, str] | None = None,
        by: str | None = None,
    ) -> Quality:
        """How good a model's versions were, by what was recorded in the last ``since_seconds`` and
        before ``until`` (Unix time). ``versions``: stable and candidate, else what can be compared;
        ``by``: an input to divide by.

        `Conflict` where nothing is recorded, `NotFound` if there is nothing in that time.
        """
        ...

    async def replay(
        self,
        model: str,
        version: str,
        *,
        since_seconds: float | None = None,
        max_rows: int = 100_000,
        by: str | None = None,
    ) -> Replay:
        """Run a registered version over the newest recorded inputs, of the last ``since_seconds``,
        and compare it with what was answered. Answers when that is done; others wait their turn.

        `Conflict` where not all inputs are recorded, `NotFound` if there is nothing in that time.
        """
        ...

    async def drift(self, model: str) -> DriftView:
        """What is known of a model's drift; its state is ``off`` where it is not watched."""
        ...

    async def reset_drift(self, model: str) -> DriftView:
        """Freeze new references, of what comes from now on; `Conflict` where it is not watched."""
        ...

    def drift_gauges(self) -> list[DriftView]:
        """Every model's drift as last seen, for metrics, alerts and the page. Never raises."""
        ...

    def events(self, after: int | None = None) -> AsyncIterator[EventView]:
        """What happens from now on, for ever; with ``after``, first what came after that event
        (as far back as it is kept: the last 1,000).
        """
        ...

    def recent_events(self) -> list[EventView]:
        """The events that are kept (the last 1,000), oldest first; without waiting for any."""
        ...

    def rollout_gauges(self) -> list[RolloutView]:
        """Each model's latest rollout as last seen, for metrics and the page.

        Cheap: from memory, ``metrics``, ``history`` and ``spec`` may be empty. Never raises.
        """
        ...

    def rollout_counters(self) -> dict[tuple[str, str, str, str], int]:
        """Rollouts that ended, by (model, strategy, phase, reason), for metrics. Never raises."""
        ...
