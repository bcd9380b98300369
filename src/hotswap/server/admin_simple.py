"""The simple admin routes, ``/admin/*``, over the same service."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from hotswap.control.interface import Control
from hotswap.core.views import ModelView, SwitchView
from hotswap.server.admin_bodies import SetActiveBody
from hotswap.server.admin_replies import (
    Cleared,
    Health,
    ModelHealth,
    Models,
    VersionRef,
    answers,
    control_of,
    reply,
)

router = APIRouter(prefix="/admin", tags=["simple admin"])
Service = Annotated[Control, Depends(control_of)]


@router.post(
    "/set-active-version",
    responses=answers(SwitchView, 400, 404, 408, 409, 413, 415, 503, 507),
)
async def set_active_version(body: SetActiveBody, control: Service) -> Response:
    """Give all traffic to a version, at once; the model may be left out if there is only one."""
    return reply(await control.switch(body.model, body.version))


@router.get("/models", responses=answers(Models, 503))
async def list_models(control: Service) -> Response:
    """Every model with its versions."""
    return reply(Models(await control.models()))


@router.post("/clear-cache", responses=answers(Cleared, 503))
async def clear_cache(control: Service) -> Response:
    """Unload the versions that are loaded without having traffic."""
    return reply(Cleared([VersionRef(*pair) for pair in await control.clear_cache()]))


@router.get("/health", responses=answers(Health, 503))
async def health(control: Service) -> Response:
    """Whether the node is ready, and each model's active version; 503 if it is not."""
    ready, reason = control.ready()
    models = {model.name: _health(model) for model in await control.models()}
    return reply(Health(ready, models, "" if ready else reason), 200 if ready else 503)


def _health(model: ModelView) -> ModelHealth:
    for version in model.versions:
        if version.version == model.active:
            return ModelHealth(version.version, version.state, version.reason)
    return ModelHealth(None, "UNAVAILABLE", "no version is active")
