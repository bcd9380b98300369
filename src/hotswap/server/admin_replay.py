"""The route that runs a version over recorded inputs."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Body, Depends, Response
from pydantic import Field, StrictInt, StrictStr

from hotswap.control.interface import Control
from hotswap.core.durations import LONGEST
from hotswap.core.naming import check_name
from hotswap.core.replay_views import Replay
from hotswap.server import admin_bodies
from hotswap.server.admin_replies import answers, control_of, reply

router = APIRouter(prefix="/api/v1/models", tags=["quality"])
Service = Annotated[Control, Depends(control_of)]

REPLAY_REPLIES: Final[tuple[type[msgspec.Struct], ...]] = (Replay,)
#: More would take hours.
MOST_ROWS: Final = 10_000_000


class ReplayBody(admin_bodies.Body):
    """What of the records is run."""

    since_seconds: Annotated[float, Field(gt=0, le=LONGEST, strict=True)] | None = Field(
        None, description="Records of the last so many seconds; without it all that are kept."
    )
    max_rows: Annotated[StrictInt, Field(ge=1, le=MOST_ROWS)] = Field(
        100_000, description="The newest rows, so many at most."
    )
    by: Annotated[StrictStr, Field(min_length=1, max_length=512)] | None = Field(
        None, description="An input to divide the report by."
    )


@router.post(
    "/{model}/versions/{version}/replay",
    responses=answers(Replay, 400, 404, 408, 409, 413, 415, 503, 507),
)
async def replay_version(
    model: str, version: str, control: Service, body: Annotated[ReplayBody | None, Body()] = None
) -> Response:
    """Run a registered version over recorded inputs, without traffic, and compare it with what was
    answered. Answers when that is done.
    """
    check_name("model", model)
    check_name("version", version)
    wanted = body or ReplayBody.model_validate({})
    return reply(
        await control.replay(
            model, version, since_seconds=wanted.since_seconds, max_rows=wanted.max_rows,
            by=wanted.by,
        )
    )  # fmt: skip


__all__ = ["REPLAY_REPLIES", "ReplayBody", "router"]
