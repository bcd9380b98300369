"""What clients send to the routes of ``/api/v1/model-switching``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple, Self

from fastapi import Body as FromBody
from pydantic import Field, WithJsonSchema, model_validator

from hotswap.core.naming import check_name
from hotswap.core.strategy import STRATEGIES
from hotswap.errors import BadInput
from hotswap.server.admin_bodies import JsonObject, ModelName, RegisterBody
from hotswap.server.admin_rollout_bodies import CONFIG, OPTIONS, check_key

_NAME: Final = {"type": "string", "maxLength": 128}
_STRATEGY: Final = {"enum": [*STRATEGIES], "default": "immediate"}
_SWITCH: Final[dict[str, Any]] = {
    "title": "SwitchRequest",
    "description": "A switch at once, or with a strategy, which starts a rollout. Beside what is "
    "named here it takes every key of a rollout's body. Unknown keys are refused.",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "model": _NAME | {"description": "May be left out when one model is registered."},
        "model_id": _NAME | {"description": "The same as model."},
        "target_version": _NAME | {"description": "The version that is to take over."},
        "version": _NAME | {"description": "The same as target_version."},
        "strategy_type": _STRATEGY,
        "strategy": _STRATEGY | {"description": "The same as strategy_type."},
        "strategy_config": CONFIG,
        "config": {**CONFIG, "description": "The same as strategy_config."},
        **OPTIONS,
    },
    "anyOf": [{"required": ["target_version"]}, {"required": ["version"]}],
    "examples": [
        {
            "model": "fraud",
            "target_version": "v2",
            "strategy_type": "canary",
            "strategy_config": {"initial_percentage": 5, "evaluation_period_minutes": 5},
        }
    ],
}

SwitchRequest = Annotated[JsonObject, FromBody(), WithJsonSchema(_SWITCH)]


class NamedRegisterBody(RegisterBody):
    """A version to register, and of which model. Give ``model`` or ``model_id``."""

    model: ModelName | None = Field(None, examples=["fraud"])
    model_id: ModelName | None = Field(None, description="The same as model.")

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (self.model_id is None):
            raise ValueError("needs either 'model' or 'model_id'")
        return self


class Wanted(NamedTuple):
    """A switch as it was asked for. ``more``: the other keys, as they came."""

    model: str | None
    version: str
    strategy: str
    config: Any
    more: dict[str, Any]

    @property
    def plain(self) -> bool:
        """Whether it is a switch at once, which nothing guards."""
        keys = {"force", "idempotency_key"}
        return self.strategy == "immediate" and not self.config and keys >= set(self.more)


def wanted(body: Mapping[str, Any]) -> Wanted:
    """The body of a switch. Raises `BadInput` for what is missing, doubled or of another type.

    >>> wanted({"version": "v2"}).strategy, wanted({"target_version": "v2"}).plain
    ('immediate', True)
    """
    more = dict(body)
    model = _one(more, "model", "model_id")
    version = _one(more, "target_version", "version")
    strategy = _one(more, "strategy_type", "strategy")
    config = _one(more, "strategy_config", "config")
    if version is None:
        raise BadInput("the body needs 'target_version'")
    for kind, value in (("model", model), ("version", version)):
        if value is not None and not isinstance(value, str):
            raise BadInput(f"the {kind} must be a string")
        if value is not None:
            check_name(kind, value)
    if strategy is None:
        strategy = "immediate"
    if strategy not in STRATEGIES:
        raise BadInput(f"strategy_type must be one of {', '.join(STRATEGIES)}")
    if config is not None and not isinstance(config, dict):
        raise BadInput("strategy_config must be an object")
    check_key(more)
    if not isinstance(more.get("force", False), bool):
        raise BadInput("force must be true or false")
    return Wanted(model, version, strategy, config, more)


def _one(fields: dict[str, Any], name: str, other: str) -> Any:
    if name in fields and other in fields:
        raise BadInput(f"give either '{name}' or '{other}', not both")
    return fields.pop(name, fields.pop(other, None))
