"""Metrics that guard a rollout or that it aims at, as operators write them, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hotswap.core.fields import flag, number
from hotswap.core.metric_names import ABSOLUTE_ONLY, DRIFT, KNOWN, LABELLED, PROVABLE, known_metric
from hotswap.core.naming import check_name
from hotswap.errors import BadInput


class Guardrail(msgspec.Struct, frozen=True):
    """A metric that can roll back, and that must be within its margin to promote.

    ``max_ratio`` (candidate over stable) and ``max_increase`` (candidate minus stable) are
    margins; ``maximum`` is a level that the candidate alone must not pass (a tripwire).
    ``weight``: its share of the evidence for rolling back. ``dry_run``: shown, never acted upon.
    ``query`` and ``source``: of a metric that a metric source reads. ``required``: without its proof
    nothing is promoted; else it can only roll back.
    """

    metric: str
    max_ratio: float | None = None
    max_increase: float | None = None
    maximum: float | None = None
    weight: float | None = None
    dry_run: bool = False
    source: str = ""
    query: str = ""
    required: bool = True


class Objective(msgspec.Struct, frozen=True):
    """A metric that must be shown better by ``min_improvement`` to promote: of accuracy, auc, brier,
    log_loss and reward in their unit, of all others a share of stable's value.
    """

    metric: str
    min_improvement: float = 0.0


#: What guards every rollout that names no guardrails itself.
DEFAULT_GUARDRAILS: Final = (
    Guardrail("error_rate", max_ratio=1.5, max_increase=0.005),
    Guardrail("latency", max_ratio=1.2),
    Guardrail("invalid_rate", max_ratio=1.5, max_increase=0.005),
    Guardrail("sample_ratio"),
)


def parse_guardrails(given: object) -> tuple[Guardrail, ...]:
    """The guardrails of a body, the defaults for None. Raises `BadInput`."""
    if given is None:
        return DEFAULT_GUARDRAILS
    if not isinstance(given, list):
        raise BadInput("guardrails must be a list of objects")
    guardrails = tuple(_guardrail(each) for each in given)
    names = [guardrail.metric for guardrail in guardrails]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadInput(f"the guardrail {min(twice)!r} is given twice")
    return guardrails


def _guardrail(given: object) -> Guardrail:
    if not isinstance(given, Mapping) or not isinstance(given.get("metric"), str):
        raise BadInput("each guardrail is an object with 'metric'")
    allowed = (
        "metric", "max_ratio", "max_increase", "max", "weight", "dry_run", "source", "query",
        "required",
    )  # fmt: skip
    for key in given:
        if key not in allowed:
            raise BadInput(f"a guardrail has an unknown key {key!r}: it takes {', '.join(allowed)}")
    metric = given["metric"]
    query = given.get("query", "")
    source = given.get("source", "prometheus" if query else "")
    if metric == "input_drift":
        return _inputs(given)
    if query or source:
        return _external(metric, given, str(source), query)
    known_metric(metric)
    if metric in LABELLED:
        return _labelled(metric, given)
    ratio, increase, level = given.get("max_ratio"), given.get("max_increase"), given.get("max")
    if metric in ABSOLUTE_ONLY and (ratio is not None or increase is not None):
        raise BadInput(f"{metric} has no ratio or increase: give it 'max'")
    weight = given.get("weight")
    if metric == "sample_ratio" and any(
        each is not None for each in (ratio, increase, level, weight)
    ):
        raise BadInput(
            "sample_ratio has no margin and no weight: it is the routing itself that it checks"
        )
    if increase is not None and metric.startswith("latency"):
        raise BadInput(
            f"{metric} is compared as a ratio: give 'max_ratio', or 'max' in milliseconds"
        )
    default = next((each for each in DEFAULT_GUARDRAILS if each.metric == metric), None)
    if ratio is None and increase is None and level is None:
        if default is None and metric.startswith("latency"):
            default = Guardrail(metric, max_ratio=1.2)
        if default is None and metric in ABSOLUTE_ONLY:
            raise BadInput(f"give the guardrail {metric!r} its 'max'")
        base = default or Guardrail(metric)
    else:
        low, high = _LEVELS.get(metric, (1e-3, 1e9))
        base = Guardrail(
            metric,
            None if ratio is None else number("max_ratio", ratio, low=1.0, high=1000.0),
            None if increase is None else number("max_increase", increase, low=0.0, high=1.0),
            None if level is None else number("max", level, low=low, high=high),
        )
    return msgspec.structs.replace(
        base,
        weight=None if weight is None else number("weight", weight, low=1e-6, high=1e6),
        dry_run=flag("dry_run", given.get("dry_run", False)),
        required=flag("required", given.get("required", True)),
    )


#: The margins of metrics that labels decide, where none is given: a point of accuracy, of AUC or
#: of Brier's score, 0.02 nats, 5 % more error.
_LABEL_MARGINS: Final[dict[str, Guardrail]] = {
    "accuracy": Guardrail("accuracy", max_increase=0.01),
    "auc": Guardrail("auc", max_increase=0.01),
    "brier": Guardrail("brier", max_increase=0.01),
    "log_loss": Guardrail("log_loss", max_increase=0.02),
    "mae": Guardrail("mae", max_ratio=1.05),
    "rmse": Guardrail("rmse", max_ratio=1.05),
}
_MORE_IS_BETTER: Final = ("accuracy", "auc", "reward")


def _labelled(metric: str, given: Mapping[str, Any]) -> Guardrail:
    """A metric of labels: with a margin alone, since no level is right for every day's labels."""
    ratio, increase, weight = given.get("max_ratio"), given.get("max_increase"), given.get("weight")
    if given.get("max") is not None:
        raise BadInput(
            f"{metric} is compared between both versions, and has no level: give 'max_increase'"
            + (" or 'max_ratio'" if metric in ("mae", "rmse") else "")
        )
    if ratio is not None and metric not in ("mae", "rmse"):
        what = "how much of it may be lost" if metric in _MORE_IS_BETTER else "how much it may rise"
        raise BadInput(f"{metric} is compared as a difference: give 'max_increase', {what}")
    if ratio is not None and increase is not None:
        raise BadInput(f"give the guardrail {metric!r} either 'max_ratio' or 'max_increase'")
    if increase is not None and metric == "rmse":
        raise BadInput("rmse is compared as a ratio: give 'max_ratio'")
    base = _LABEL_MARGINS.get(metric)
    if ratio is None and increase is None:
        if base is None:
            raise BadInput("give the guardrail 'reward' its 'max_increase': how much may be lost")
    else:
        high = 1.0 if metric in ("accuracy", "auc", "brier") else 1e9
        base = Guardrail(
            metric,
            None if ratio is None else number("max_ratio", ratio, low=1.0, high=1000.0),
            None if increase is None else number("max_increase", increase, low=0.0, high=high),
        )
    return msgspec.structs.replace(
        base,
        weight=None if weight is None else number("weight", weight, low=1e-6, high=1e6),
        dry_run=flag("dry_run", given.get("dry_run", False)),
        required=flag("required", given.get("required", True)),
    )


#: Between which a level must lie: shares, else milliseconds. A share of 0 cannot be shown.
_LEVELS: Final = {
    "error_rate": (0.0, 1.0),
    "invalid_rate": (0.0, 1.0),
    "disagreement": (1e-6, 1.0),
    "prediction_drift": (1e-6, 1.0),
}


def _inputs(given: Mapping[str, Any]) -> Guardrail:
    """A level that the watch for drift reads. It holds a rollout and never rolls it back."""
    keys = {key for key, value in given.items() if value is not None}
    for key in sorted(keys - {"metric", "max", "dry_run", "source", "query", "required"}):
        raise BadInput(f"input_drift is the same for both versions: it has no {key!r}, but 'max'")
    if given.get("source", DRIFT) != DRIFT or given.get("query"):
        raise BadInput("input_drift is hotswap's own metric: it has no 'source' and no 'query'")
    if given.get("required", True) is not True:
        raise BadInput("input_drift can only hold: without being required it would do nothing")
    if given.get("max") is None:
        raise BadInput("give the guardrail 'input_drift' its 'max'")
    return Guardrail(
        "input_drift",
        maximum=number("max", given["max"], low=1e-6, high=1.0),
        dry_run=flag("dry_run", given.get("dry_run", False)),
        source=DRIFT,
    )


def _external(metric: str, given: Mapping[str, Any], source: str, query: object) -> Guardrail:
    """A reading of a metric source: it has a level, and no arms to compare."""
    if source != "prometheus":
        raise BadInput(f"there is no metric source {source!r}: use 'prometheus'")
    if not isinstance(query, str) or not query.strip():
        raise BadInput(f"give the guardrail {metric!r} its 'query'")
    if metric in KNOWN:
        raise BadInput(f"{metric!r} is hotswap's own metric: give the query another name")
    check_name("metric", metric)
    for key in ("max_ratio", "max_increase", "weight"):
        if given.get(key) is not None:
            raise BadInput(
                f"a query is compared with a level alone: the guardrail {metric!r} has no {key!r}"
            )
    if given.get("max") is None:
        raise BadInput(f"a query is compared with a level: give the guardrail {metric!r} its 'max'")
    return Guardrail(
        metric,
        maximum=number("max", given["max"], low=-1e12, high=1e12),
        dry_run=flag("dry_run", given.get("dry_run", False)),
        source=source,
        query=query,
    )


def parse_objectives(given: object) -> tuple[Objective, ...]:
    """The objectives of a body. Raises `BadInput`."""
    if given is None:
        return ()
    if not isinstance(given, list):
        raise BadInput("objectives must be a list of objects")
    found: list[Objective] = []
    for each in given:
        if not isinstance(each, Mapping) or not isinstance(each.get("metric"), str):
            raise BadInput("each objective is an object with 'metric'")
        unknown = set(each) - {"metric", "min_improvement"}
        if unknown:
            raise BadInput(f"an objective has an unknown key {min(map(str, unknown))!r}")
        known_metric(each["metric"])
        if each["metric"] not in (*PROVABLE, *LABELLED):
            choices = ", ".join((*PROVABLE, *LABELLED))
            raise BadInput(f"{each['metric']} cannot be shown better: objectives are {choices}")
        least = number("min_improvement", each.get("min_improvement", 0), low=0.0, high=0.99)
        if any(other.metric == each["metric"] for other in found):
            raise BadInput(f"the objective {each['metric']!r} is given twice")
        found.append(Objective(each["metric"], least))
    return tuple(found)
