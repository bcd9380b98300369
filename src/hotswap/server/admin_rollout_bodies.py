"""What clients send about rollouts.

A start is passed on as it came: `hotswap.core.strategy.parse` checks it and says what is wrong.
Its schema here is for readers and for generators of clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import Body as FromBody
from fastapi import Query, Request
from pydantic import Field, StrictBool, StrictInt, StrictStr, WithJsonSchema

from hotswap.core.strategy import DEFAULTS, ON_INSUFFICIENT, ON_RUNNING, STRATEGIES
from hotswap.errors import BadInput
from hotswap.server.admin_bodies import LARGEST, Body, JsonObject, Key

#: Whom the journal names for what came over HTTP.
WHO: Final = "api"
KEY_LENGTH: Final = 200
#: Keys of a strategy's configuration that are durations, and need a unit in their name.
DURATIONS: Final = ("duration", "evaluation_period", "test_duration")


def spelled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A strategy's configuration in the keys that a body takes.

    >>> spelled({"duration": 60.0, "steps": 4})
    {'duration_seconds': 60.0, 'steps': 4}
    """
    return {f"{key}_seconds" if key in DURATIONS else key: config[key] for key in config}


def _seconds(text: str, default: float) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, "default": default, "description": text}


_NUMBER: Final = {"type": "number"}
_STEP: Final = {
    "description": "A bare number is a weight. hold may also end in _minutes or _hours.",
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
        *(
            {"type": "object", "properties": {name: kind}, "required": [name]}
            for name, kind in (
                ("weight", _NUMBER),
                ("hold_seconds", _NUMBER),
                ("requests", {"type": "integer", "minimum": 1}),
                ("approval", {"const": True}),
                ("shadow_percentage", _NUMBER),
            )
        ),
    ],
}
_GUARDRAIL: Final = {
    "type": "object",
    "required": ["metric"],
    "additionalProperties": False,
    "properties": {
        "metric": {"type": "string", "examples": ["error_rate"]},
        "max_ratio": _NUMBER | {"description": "Margin: candidate over stable."},
        "max_increase": _NUMBER | {"description": "Margin: candidate minus stable."},
        "max": _NUMBER | {"description": "Tripwire: the candidate's own level."},
        "weight": _NUMBER | {"description": "Share of the evidence for rolling back."},
        "dry_run": {"type": "boolean", "default": False},
        "required": {
            "type": "boolean",
            "default": True,
            "description": "Without its proof nothing is promoted; else it can only roll back.",
        },
        "source": {"type": "string", "examples": ["prometheus"]},
        "query": {"type": "string", "description": "Of a metric source; compared with max."},
    },
}
_OBJECTIVE: Final = {
    "type": "object",
    "required": ["metric"],
    "additionalProperties": False,
    "properties": {
        "metric": {"type": "string"},
        "min_improvement": _NUMBER | {"minimum": 0, "default": 0},
    },
}
_CONFIGS: Final = "; ".join(
    f"{name}: " + (", ".join(f"`{k}` {v!r}" for k, v in spelled(DEFAULTS[name]).items()) or "none")
    for name in STRATEGIES
)

#: What a rollout's body may hold beside model, version, strategy and its config.
OPTIONS: Final[Mapping[str, Any]] = {
    "steps": {"type": "array", "items": _STEP, "description": "Instead of the strategy's own."},
    "guardrails": {"type": "array", "items": _GUARDRAIL},
    "objectives": {"type": "array", "items": _OBJECTIVE, "description": "All must pass."},
    "alpha": _NUMBER | {"default": 0.05, "description": "Odds of a false alarm, at most."},
    "on_running": {"enum": [*ON_RUNNING], "default": ON_RUNNING[0]},
    "on_insufficient": {"enum": [*ON_INSUFFICIENT], "default": ON_INSUFFICIENT[0]},
    "bake_seconds": _seconds("How long the old version is kept warm and watched against.", 600),
    "watch_seconds": _seconds("How long the new version is watched after that.", 3600),
    "deadline_seconds": _seconds("How long a step may wait for evidence.", 86400),
    "label_maturity_seconds": _seconds("How long a label may take and still decide.", 86400),
    "min_requests": {"type": "integer", "minimum": 0, "default": 0},
    "budget_ms": {
        "type": ["number", "null"],
        "description": "The candidate's time before stable answers for it.",
    },
    "key_input": {"type": ["string", "null"], "description": "An input that users stick by."},
    "seed": {"type": ["integer", "null"]},
    "force": {
        "type": "boolean",
        "default": False,
        "description": "Also a version that was rolled back before.",
    },
    "idempotency_key": {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH},
}
CONFIG: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "Of the strategy. Durations may end in `_seconds`, `_minutes` or `_hours`. "
    f"Keys and defaults: {_CONFIGS}.",
}
_NAME: Final = {"type": "string", "maxLength": 128}
_START: Final[dict[str, Any]] = {
    "title": "RolloutStart",
    "description": "A rollout to start. Unknown keys are refused.",
    "type": "object",
    "required": ["model", "version"],
    "additionalProperties": False,
    "properties": {
        "model": _NAME,
        "version": _NAME | {"description": "The candidate."},
        "strategy": {"enum": [*STRATEGIES], "description": "Without it, steps are a canary's."},
        "config": CONFIG,
        **OPTIONS,
    },
    "examples": [
        {
            "model": "fraud",
            "version": "v2",
            "strategy": "canary",
            "steps": [5, {"hold_minutes": 10}, 25, 50],
            "guardrails": [{"metric": "error_rate", "max_ratio": 1.5}],
            "bake_minutes": 10,
        }
    ],
}

RolloutStart = Annotated[JsonObject, FromBody(), WithJsonSchema(_START)]
Generation = Annotated[StrictInt, Field(ge=0, le=LARGEST)]


class CommandBody(Body):
    """A command to a rollout; all of it may be left out."""

    generation: Generation | None = Field(
        None, description="The rollout's, as last seen: 409 if it has moved on since."
    )
    idempotency_key: Key | None = Field(
        None, description="The same key again carries nothing out again."
    )
    force: StrictBool = Field(
        False, description="Promote although a guardrail fails. Never skips capacity."
    )
    why: StrictStr = Field("", description="A reason, for the journal.", max_length=2000)


#: A command without a body.
NOTHING_ELSE: Final = CommandBody.model_validate({})

DryRun = Annotated[bool, Query(description="Answer with the plan and its odds, and start nothing.")]


def check_key(body: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless the idempotency key is a usable one, or absent."""
    key = body.get("idempotency_key")
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= KEY_LENGTH):
        raise BadInput(f"idempotency_key must be a string of 1 to {KEY_LENGTH} characters")


def check_query(request: Request, *known: str) -> None:
    """Raise `BadInput` for a query parameter that this route does not know, or that is repeated."""
    for name in request.query_params:
        if name not in known:
            takes = ", ".join(known) or "none"
            raise BadInput(f"there is no query parameter {name[:64]!r} here; there is: {takes}")
        if len(request.query_params.getlist(name)) > 1:
            raise BadInput(f"give the query parameter {name!r} once")
