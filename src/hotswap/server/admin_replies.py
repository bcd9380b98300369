"""What the control API answers: control's values as JSON, and their schemas for OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from fastapi import Request, Response

from hotswap.control.interface import Control
from hotswap.core.registry_views import RegistryView
from hotswap.core.rollout_views import EventView, JournalView, PlanView, RolloutView
from hotswap.core.views import ModelView, OperationView, SwitchView, VersionView
from hotswap.errors import HotswapError
from hotswap.server.errors import status_of, translate

REF: Final = "#/components/schemas/{name}"


class Models(msgspec.Struct, frozen=True):
    """Every registered model, by name."""

    models: list[ModelView]


class Operations(msgspec.Struct, frozen=True):
    """Switches and loads, newest first."""

    operations: list[OperationView]


class Rollouts(msgspec.Struct, frozen=True):
    """Rollouts, newest first."""

    rollouts: list[RolloutView]


class Journal(msgspec.Struct, frozen=True):
    """Everything that was decided about one rollout, oldest first."""

    journal: list[JournalView]


class VersionRef(msgspec.Struct, frozen=True):
    """One version of one model."""

    model: str
    version: str


class Removed(msgspec.Struct, frozen=True):
    """What was removed; ``version`` null: the whole model."""

    model: str
    version: str | None = None


class Cleared(msgspec.Struct, frozen=True):
    """The resident versions without weight, which were unloaded."""

    cleared: list[VersionRef]


class Hinted(msgspec.Struct, frozen=True):
    """A webhook was taken; ``repeated``: it had been taken before, and changed nothing."""

    accepted: bool
    repeated: bool


class Live(msgspec.Struct, frozen=True):
    """This process runs."""

    live: bool


class Ready(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether this node may be sent requests; ``error`` says why not."""

    ready: bool
    error: str = ""


class ModelHealth(msgspec.Struct, frozen=True):
    """One model's active version and its state."""

    active: str | None
    state: str
    reason: str = ""


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """The node's health and each model's. ``error``: why it is not ready."""

    ready: bool
    models: dict[str, ModelHealth]
    error: str = ""


class Error(msgspec.Struct, frozen=True):
    """What went wrong, in a sentence that says what to do."""

    error: str


class Refused(msgspec.Struct, frozen=True, omit_defaults=True):
    """Not possible in the present state: why, and the rollout's current state, if there is one."""

    error: str
    rollout: RolloutView | None = None


REPLIES: Final[tuple[type[msgspec.Struct], ...]] = (
    Models,
    ModelView,
    VersionView,
    Operations,
    OperationView,
    SwitchView,
    Rollouts,
    RolloutView,
    Journal,
    PlanView,
    EventView,
    RegistryView,
    Hinted,
    Refused,
    Removed,
    Cleared,
    Live,
    Ready,
    Health,
    Error,
)

ERRORS: Final[Mapping[int, str]] = {
    400: "The request cannot be understood.",
    401: "A valid token is needed.",
    403: "Not allowed: another site's page, a folder outside the allowed roots, or an artifact "
    "that can run code.",
    404: "No such model, version, operation, rollout or route.",
    408: "The request took too long to arrive.",
    409: "Not possible in the present state.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    421: "This server does not answer for that Host.",
    500: "The server failed.",
    503: "Not ready, or the store cannot be used.",
    507: "Not enough memory.",
}


def control_of(request: Request) -> Control:
    """The service that the routes speak for."""
    control: Control = request.app.state.control
    return control


def reply(
    value: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """``value`` as a JSON response."""
    return Response(
        msgspec.json.encode(value), status, headers=headers, media_type="application/json"
    )


def answers(kind: type[msgspec.Struct], *errors: int, status: int = 200) -> dict[Any, Any]:
    """``responses=`` of a route that answers with ``kind``, or with one of ``errors``."""
    documented = {
        code: {"description": ERRORS[code], "content": content(Error)}
        for code in sorted({401, 403, 421, 500, *errors})
    }
    return {status: {"description": _summary(kind), "content": content(kind)}} | documented


async def refused(
    error: HotswapError, state: Callable[[], Awaitable[RolloutView | None]]
) -> Response:
    """A 409 with the rollout's current state beside the reason; other errors are raised again."""
    if status_of(error) != 409:
        raise error
    status, _, body = translate(error)
    try:
        view = await state()
    except HotswapError:  # the reason alone, then
        view = None
    document = msgspec.json.decode(body)
    return reply(Refused(document["error"], view), status)


def schemas(*more: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schemas of everything that is answered, for the document's components."""
    components = msgspec.json.schema_components((*REPLIES, *more), ref_template=REF)[1]
    shown = components["MetricView"]["properties"]
    for name in ("evidence", "proof"):
        shown[name]["type"] = ["number", "null"]
    interval = shown["interval"]
    ends = next(each for each in interval["anyOf"] if each["type"] == "array")
    ends["prefixItems"] = [{"type": ["number", "null"]}] * 2
    interval["description"] = "An end that is null is infinite."
    return dict(components)


def content(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """``content=`` of a documented answer."""
    return {"application/json": {"schema": {"$ref": REF.format(name=kind.__name__)}}}


def _summary(kind: type[msgspec.Struct]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]
