"""Routes for drift: what is known of it, and a new reference."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, Response

from hotswap.control.interface import Control
from hotswap.core.drift_views import DriftView
from hotswap.core.naming import check_name
from hotswap.server.admin_replies import answers, control_of, reply

router = APIRouter(prefix="/api/v1/models", tags=["drift"])
Service = Annotated[Control, Depends(control_of)]

DRIFT_REPLIES: Final[tuple[type[msgspec.Struct], ...]] = (DriftView,)


@router.get("/{model}/drift", responses=answers(DriftView, 400, 404, 503))
async def show_drift(model: str, control: Service) -> Response:
    """How far a model's inputs and answers are from their frozen reference, column by column."""
    check_name("model", model)
    return reply(await control.drift(model))


@router.post("/{model}/drift/reset", responses=answers(DriftView, 400, 404, 409, 503))
async def reset_drift(model: str, control: Service) -> Response:
    """Freeze new references, of what comes from now on; alarms are over."""
    check_name("model", model)
    return reply(await control.reset_drift(model))


__all__ = ["DRIFT_REPLIES", "router"]
