"""The route for a model's report: how good its versions were, as JSON, HTML or Markdown."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from hotswap.control.interface import Control
from hotswap.core.naming import check_name
from hotswap.core.quality_views import Quality
from hotswap.errors import BadInput
from hotswap.server.admin_replies import answers, control_of, reply
from hotswap.server.admin_rollout_bodies import check_query

router = APIRouter(prefix="/api/v1/models", tags=["quality"])
Service = Annotated[Control, Depends(control_of)]
Form = Literal["json", "html", "markdown"]
#: The report in a form: "html" or "markdown".
Writer = Callable[[Quality, str], str]

QUALITY_REPLIES: Final[tuple[type[msgspec.Struct], ...]] = (Quality,)
PARAMETERS: Final = ("since_seconds", "until", "versions", "by", "format")
_TYPES: Final = {"html": "text/html", "markdown": "text/markdown"}
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
_LONGEST_COLUMN: Final = 512


def _documented() -> dict[Any, Any]:
    found = answers(Quality, 400, 404, 409, 503)
    found[200]["content"] |= {name: {"schema": {"type": "string"}} for name in _TYPES.values()}
    return found


@router.get("/{model}/report", responses=_documented())
async def show_report(
    model: str,
    request: Request,
    control: Service,
    since_seconds: Annotated[
        float | None, Query(gt=0, description="Records of the last so many seconds.")
    ] = None,
    until: Annotated[
        str | None, Query(description="Records before this: a Unix time or an ISO 8601 date.")
    ] = None,
    versions: Annotated[
        str | None, Query(description="Stable and candidate: `v1,v2`.", max_length=300)
    ] = None,
    by: Annotated[
        str | None, Query(description="An input to divide by.", max_length=_LONGEST_COLUMN)
    ] = None,
    format: Annotated[Form, Query(description="In which form.")] = "json",
) -> Response:
    """How good a model's versions were: on the same requests where both answered.

    Numbers that are infinite or unknown are null.
    """
    check_query(request, *PARAMETERS)
    check_name("model", model)
    end = None if until is None else moment("until", until)
    if since_seconds is not None and not math.isfinite(since_seconds):
        raise BadInput("since_seconds must be a number of seconds")
    if by == "":
        raise BadInput("by names no input: give the name of one, or leave it out")
    pair = None if versions is None else pair_of(versions)
    quality = await control.quality(
        model, since_seconds=since_seconds, until=end, versions=pair, by=by
    )
    if format == "json":
        return reply(quality)
    write: Writer | None = request.app.state.write_report
    if write is None:
        raise BadInput("this server writes reports as JSON alone: leave out format")
    text = await asyncio.to_thread(write, quality, format)
    return Response(text, headers=_HEADERS, media_type=_TYPES[format])


def pair_of(text: str) -> tuple[str, str]:
    """``v1,v2`` as stable and candidate. Raises `BadInput`.

    >>> pair_of("v1, v2")
    ('v1', 'v2')
    """
    names = [check_name("version", each.strip()) for each in text.split(",")]
    if len(names) != 2 or names[0] == names[1]:
        raise BadInput("versions takes two different ones, stable and candidate: v1,v2")
    return names[0], names[1]


def moment(name: str, text: str) -> float:
    """A Unix time, given as such or as an ISO 8601 date; UTC where it names no zone.

    >>> moment("until", "1700000000"), moment("until", "2023-11-14T22:13:20Z")
    (1700000000.0, 1700000000.0)
    """
    try:
        at = float(text)
    except ValueError:
        try:
            date = datetime.fromisoformat(text)
            at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            at = math.nan
    if not 0 <= at < 1e11:
        raise BadInput(f"{name} must be a Unix time or a date such as 2030-01-31T12:00:00Z")
    return at


__all__ = ["PARAMETERS", "QUALITY_REPLIES", "Writer", "moment", "pair_of", "router"]
