"""What the admin API, the page and the CLI's server side ask of control."""

from __future__ import annotations

from typing import Any, Protocol

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
        idempotency_key: str | None = None,
    ) -> SwitchView:
        """Answers when flipped. ``model`` None: the only model."""
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
