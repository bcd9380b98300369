"""Serve machine-learning models, and switch live traffic between their versions without dropping a request.

>>> from hotswap import Engine, SwitchingStrategyType
>>> SwitchingStrategyType.IMMEDIATE.value
'immediate'

Importing the package imports nothing else; each name brings what it needs when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotswap.app.engine import Engine, SwitchingStrategyType
    from hotswap.app.engine_prediction import Prediction
    from hotswap.core.rollout_views import PlanView, RolloutView
    from hotswap.core.views import OperationView
    from hotswap.errors import (
        BadInput,
        ConfigError,
        Conflict,
        DeadlineExceeded,
        DigestMismatch,
        Forbidden,
        HostLost,
        HotswapError,
        InvalidOutput,
        LoadError,
        MissingDependency,
        ModelFailed,
        NotFound,
        OutOfMemory,
        Overloaded,
        SignatureMismatch,
        StoreError,
        TooLarge,
        Unavailable,
        UntrustedCode,
    )

_ENGINE = "hotswap.app.engine"
_ERRORS = "hotswap.errors"
_WHERE = {
    "Engine": _ENGINE,
    "SwitchingStrategyType": _ENGINE,
    "Prediction": "hotswap.app.engine_prediction",
    "PlanView": "hotswap.core.rollout_views",
    "RolloutView": "hotswap.core.rollout_views",
    "OperationView": "hotswap.core.views",
    "BadInput": _ERRORS,
    "ConfigError": _ERRORS,
    "Conflict": _ERRORS,
    "DeadlineExceeded": _ERRORS,
    "DigestMismatch": _ERRORS,
    "Forbidden": _ERRORS,
    "HostLost": _ERRORS,
    "HotswapError": _ERRORS,
    "InvalidOutput": _ERRORS,
    "LoadError": _ERRORS,
    "MissingDependency": _ERRORS,
    "ModelFailed": _ERRORS,
    "NotFound": _ERRORS,
    "OutOfMemory": _ERRORS,
    "Overloaded": _ERRORS,
    "SignatureMismatch": _ERRORS,
    "StoreError": _ERRORS,
    "TooLarge": _ERRORS,
    "Unavailable": _ERRORS,
    "UntrustedCode": _ERRORS,
}

__all__ = [
    "BadInput",
    "ConfigError",
    "Conflict",
    "DeadlineExceeded",
    "DigestMismatch",
    "Engine",
    "Forbidden",
    "HostLost",
    "HotswapError",
    "InvalidOutput",
    "LoadError",
    "MissingDependency",
    "ModelFailed",
    "NotFound",
    "OperationView",
    "OutOfMemory",
    "Overloaded",
    "PlanView",
    "Prediction",
    "RolloutView",
    "SignatureMismatch",
    "StoreError",
    "SwitchingStrategyType",
    "TooLarge",
    "Unavailable",
    "UntrustedCode",
]


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(where), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
