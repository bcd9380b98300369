"""The data plane's HTTP application over an engine, started and stopped by the ASGI lifespan."""

from __future__ import annotations

from typing import Protocol

import structlog

from hotswap.core.spec import Limits
from hotswap.errors import HotswapError, ModelFailed
from hotswap.ports import DataPlane
from hotswap.server.app import DataApp
from hotswap.server.asgi import Receive, Scope, Send
from hotswap.server.messages import Answer, Request

log = structlog.get_logger("hotswap.engine")


class Startable(Protocol):
    """What the lifespan needs of an engine."""

    @property
    def running(self) -> bool: ...

    async def start(self) -> object: ...

    async def stop(self) -> None: ...


class EngineApp(DataApp):
    """`DataApp` that starts its engine, if nobody has, when its server starts, and stops it then."""

    def __init__(
        self, engine: Startable, plane: DataPlane, limits: Limits, *, token: str | None = None
    ) -> None:
        super().__init__(plane, limits, token=token)
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _error(self, exc: Exception, request: Request) -> Answer:
        answer = super()._error(exc, request)
        if isinstance(exc, ModelFailed):
            # The client is told what it was; the traceback is for the log alone.
            log.warning("a model failed on a request", request_id=request.id, exc_info=exc)
        return answer

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        mine = not self._engine.running
        if mine:
            try:
                await self._engine.start()
            except HotswapError as exc:
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
                return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if mine:
            await self._engine.stop()
        await send({"type": "lifespan.shutdown.complete"})


__all__ = ["EngineApp", "Startable"]
