"""`engine.registry`: versions as a program registers, lists and switches them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hotswap.core.views import ModelView, SwitchView, VersionView

if TYPE_CHECKING:
    from hotswap.app.engine_control import ControlThread
    from hotswap.app.engine_service import EngineService


class ModelRegistry:
    """The registered models of a started `hotswap.Engine`.

    `register_model` and `list_models` block and may be called from any thread; `switch_model` is
    awaited.
    """

    def __init__(self, control: Callable[[], tuple[ControlThread, EngineService]]) -> None:
        self._control = control

    def register_model(
        self,
        name: str,
        version: str | None,
        path: str | os.PathLike[str],
        metadata: Mapping[str, Any] | None = None,
        *,
        runtime: str | None = None,
        changelog: str = "",
        in_place: bool = False,
        compile: str | None = None,
    ) -> VersionView:
        """Register the version of a model that lies at ``path``; it is not loaded or activated.

        ``path`` is a version's folder, a model file or a ``model.tar.gz``, or a ``file:`` URI.
        Without ``version`` it becomes the next ``vN``. What is there is hashed and copied before
        this returns, so call it in a thread (``asyncio.to_thread``) where an artifact is large
        and the event loop must not wait. ``in_place``: not copied, but hashed at each load.
        ``compile="onnx"`` converts it and proves that it answers alike.

        Raises `BadInput`, `Conflict` (the version exists with other content), `UntrustedCode`,
        `LoadError`, `StoreError`; `Unavailable` if the engine is not started.
        """
        control, service = self._control()
        uri = os.fspath(path)
        if uri.strip() and not uri.startswith("file:"):
            uri = os.path.abspath(os.path.expanduser(uri))
        return control.wait(
            service.register(
                name, uri, version=version,
                runtime=runtime, metadata=dict(metadata or {}), changelog=changelog,
                in_place=in_place, compile=compile, who="program",
            )
        )  # fmt: skip

    async def switch_model(self, name: str, version: str, *, force: bool = False) -> SwitchView:
        """Load and validate the version, then answer by it; returns once every new request is.

        Requests in flight finish on the version on which they began. ``force`` accepts a version
        with another signature. Raises `NotFound`, `Conflict` (superseded, aborted),
        `SignatureMismatch`, `UntrustedCode`, `LoadError`, `OutOfMemory`: the version that
        answered before then still does.
        """
        control, service = self._control()
        return await control.call(service.switch(name, version, force=force))

    def list_models(self) -> list[ModelView]:
        """Every model with its versions: state, role, digest, and what is wrong with them."""
        control, service = self._control()
        return control.wait(service.models())

    def get_model(self, name: str) -> ModelView:
        """One of them. Raises `NotFound`."""
        control, service = self._control()
        return control.wait(service.model(name))

    def remove_version(self, name: str, version: str) -> None:
        """Forget a version. Raises `Conflict` while it is active or a rollback leads to it."""
        control, service = self._control()
        control.wait(service.remove_version(name, version))
