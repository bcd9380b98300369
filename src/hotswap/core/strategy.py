"""What an operator asks of a rollout: the body of a start, checked and with its defaults. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hotswap.core.durations import SECONDS, seconds_of
from hotswap.core.metric_names import ABSOLUTE_ONLY, KNOWN, LATER, PROVABLE, known_metric
from hotswap.core.naming import check_name
from hotswap.core.plan_steps import parse_steps
from hotswap.errors import BadInput

STRATEGIES: Final = (
    "immediate",
    "gradual",
    "canary",
    "ab_test",
    "shadow",
    "champion_challenger",
    "bandit",
)

#: Each strategy's configuration with its defaults. ``evaluation_period`` and the like are durations.
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "immediate": {},
    "gradual": {"duration": 3600.0, "steps": 4, "require_proof": True},
    "canary": {
        "initial_percentage": 5.0,
        "step_percentage": 15.0,
        "max_percentage": 100.0,
        "evaluation_period": 300.0,
        "max_error_rate_threshold": 0.05,
        "require_proof": True,
    },
    "ab_test": {
        "traffic_percentage": 50.0,
        "test_duration": 86400.0,
        "target_metric": "error_rate",
        "promote_winner": False,
    },
    "shadow": {
        "sample_percentage": 100.0,
        "min_requests": 1000,
        "then": None,
        "then_config": None,
    },
    "champion_challenger": {
        "challenger_percentage": 10.0,
        "min_pairs": 1000,
        "promote": True,
    },
    "bandit": {
        "target_metric": "error_rate",
        "min_percentage": 5.0,
        "max_percentage": 95.0,
        "duration": 86400.0,
    },
}

_DURATIONS: Final = frozenset({"duration", "evaluation_period", "test_duration"})

ON_RUNNING: Final = ("refuse", "replace", "queue")
ON_INSUFFICIENT: Final = ("hold", "extend", "rollback")


class Guardrail(msgspec.Struct, frozen=True):
    """A metric that can roll back, and that must be within its margin to promote.

    ``max_ratio`` (candidate over stable) and ``max_increase`` (candidate minus stable) are
    margins; ``maximum`` is a level that the candidate alone must not pass (a tripwire).
    ``weight``: its share of the evidence for rolling back. ``dry_run``: shown, never acted upon.
    ``query`` and ``source``: of a metric that a metric source reads.
    """

    metric: str
    max_ratio: float | None = None
    max_increase: float | None = None
    maximum: float | None = None
    weight: float | None = None
    dry_run: bool = False
    source: str = ""
    query: str = ""


class Objective(msgspec.Struct, frozen=True):
    """A metric that must be shown better by ``min_improvement`` (relative) to promote."""

    metric: str
    min_improvement: float = 0.0


class RolloutSpec(msgspec.Struct, frozen=True):
    """What is wanted, with every default filled in. Percentages as given, durations in seconds.

    ``steps``: given explicitly, else empty. ``deadline_seconds``: how long a step may wait for
    evidence before ``on_insufficient``. ``budget_ms``: how long the candidate may take before
    stable answers for it, None: ten times stable's p99, 100 ms to 5 s. ``watch_seconds``: how long the
    new stable is watched after the bake. ``force``: also for a version that was rolled back.
    """

    model: str
    version: str
    strategy: str
    config: dict[str, Any]
    steps: tuple[dict[str, Any], ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    objectives: tuple[Objective, ...] = ()
    alpha: float = 0.05
    on_running: str = "refuse"
    on_insufficient: str = "hold"
    bake_seconds: float = 600.0
    watch_seconds: float = 3600.0
    deadline_seconds: float = 86400.0
    min_requests: int = 0
    budget_ms: float | None = None
    key_input: str | None = None
    seed: int | None = None
    force: bool = False


#: What guards every rollout that names no guardrails itself.
DEFAULT_GUARDRAILS: Final = (
    Guardrail("error_rate", max_ratio=1.5, max_increase=0.005),
    Guardrail("latency", max_ratio=1.2),
    Guardrail("invalid_rate", max_ratio=1.5, max_increase=0.005),
    Guardrail("sample_ratio"),
)

_KEYS: Final = frozenset(
    {
        "model", "version", "strategy", "config", "steps", "guardrails", "objectives", "alpha",
        "on_running", "on_insufficient", "bake", "watch", "deadline", "min_requests",
        "budget_ms", "key_input", "seed", "force", "idempotency_key",
    }
)  # fmt: skip
_BODY_DURATIONS: Final = frozenset({"bake", "watch", "deadline"})


def parse(body: Mapping[str, Any]) -> RolloutSpec:
    """The body of a start as a specification. Raises `BadInput` saying what to give instead.

    >>> parse({"model": "m", "version": "v2", "strategy": "canary"}).config["initial_percentage"]
    5.0
    """
    fields = durations(body, _KEYS, _BODY_DURATIONS, "the body")
    for name in ("model", "version"):
        value = fields.get(name)
        if not isinstance(value, str) or not value:
            raise BadInput(f"give {name!r} as a string")
        check_name(name, value)
    strategy = fields.get("strategy", "canary" if fields.get("steps") else None)
    if strategy not in STRATEGIES:
        raise BadInput(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")
    config = configuration(strategy, fields.get("config") or {})
    steps = parse_steps(fields["steps"]) if fields.get("steps") is not None else ()
    if steps and strategy not in ("canary", "gradual"):
        raise BadInput(
            f"steps go with the strategies canary and gradual: {strategy} makes its own from its config"
        )
    if steps:
        _check_explicit(strategy, fields.get("config") or {})
    guardrails = _guardrails(fields.get("guardrails"), config)
    objectives = _objectives(fields.get("objectives"))
    given = fields.get("seed")
    if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
        raise BadInput("seed must be a whole number")
    budget = fields.get("budget_ms")
    key_input = fields.get("key_input")
    if key_input is not None and (not isinstance(key_input, str) or not key_input):
        raise BadInput("key_input must be the name of an input")
    return RolloutSpec(
        model=fields["model"],
        version=fields["version"],
        strategy=strategy,
        config=config,
        steps=steps,
        guardrails=guardrails,
        objectives=objectives,
        alpha=_number("alpha", fields.get("alpha", 0.05), low=1e-6, high=0.5),
        on_running=_choice("on_running", fields.get("on_running", "refuse"), ON_RUNNING),
        on_insufficient=_choice(
            "on_insufficient", fields.get("on_insufficient", "hold"), ON_INSUFFICIENT
        ),
        bake_seconds=fields.get("bake", 600.0),
        watch_seconds=fields.get("watch", 3600.0),
        deadline_seconds=fields.get("deadline", 86400.0),
        min_requests=_count("min_requests", fields.get("min_requests", 0)),
        budget_ms=None if budget is None else _number("budget_ms", budget, low=1, high=300_000),
        key_input=key_input,
        seed=given,
        force=_flag("force", fields.get("force", False)),
    )


def configuration(strategy: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A strategy's configuration with defaults. Raises `BadInput` for what it does not know.

    >>> configuration("gradual", {"duration_minutes": 1})["duration"]
    60.0
    """
    defaults = DEFAULTS[strategy]
    fields = durations(given, frozenset(defaults), _DURATIONS, f"the config of {strategy}")
    config = {**defaults, **fields}
    for name, value in config.items():
        if name.endswith("_percentage"):
            config[name] = _number(name, value, low=0.01, high=100.0)
        elif name in ("steps", "min_requests", "min_pairs"):
            config[name] = _count(name, value, least=1, most=100 if name == "steps" else 10**9)
        elif name == "max_error_rate_threshold":
            config[name] = None if value is None else _number(name, value, low=0.0, high=1.0)
        elif name in ("promote", "promote_winner", "require_proof"):
            config[name] = _flag(name, value)
        elif name == "target_metric":
            known_metric(value)
            if value not in PROVABLE:
                raise BadInput(
                    f"target_metric {value!r} cannot be compared between arms here: "
                    f"use one of {', '.join(PROVABLE)}"
                )
    _check_config(strategy, config)
    return config


def _check_config(strategy: str, config: dict[str, Any]) -> None:
    if strategy == "canary" and config["initial_percentage"] > config["max_percentage"]:
        raise BadInput("initial_percentage must not be above max_percentage")
    if strategy == "bandit" and config["min_percentage"] >= config["max_percentage"]:
        raise BadInput("min_percentage must be below max_percentage")
    if strategy == "shadow":
        then, more = config["then"], config["then_config"]
        if then is None and more is not None:
            raise BadInput("then_config needs 'then', the strategy that follows the shadow")
        if then is not None:
            if then not in STRATEGIES or then == "shadow":
                follow = ", ".join(name for name in STRATEGIES if name != "shadow")
                raise BadInput(f"'then' must be one of {follow}, not {then!r}")
            if more is not None and not isinstance(more, Mapping):
                raise BadInput("then_config must be an object")
            config["then_config"] = configuration(then, more or {})


def _check_explicit(strategy: str, given: Mapping[str, Any]) -> None:
    """Steps and what would make other steps contradict one another."""
    making = {
        "canary": ("initial_percentage", "step_percentage", "max_percentage"),
        "gradual": ("steps", "duration", "duration_seconds", "duration_minutes", "duration_hours"),
    }[strategy]
    clash = [name for name in making if name in given]
    if clash:
        raise BadInput(f"give either steps or {clash[0]}: they contradict one another")


def durations(
    given: Mapping[str, Any], known: frozenset[str], lengths: frozenset[str], where: str
) -> dict[str, Any]:
    """``given`` with every ``X_seconds``, ``X_minutes`` and ``X_hours`` as ``X`` in seconds.

    Raises `BadInput` for unknown keys, and for a duration that is given twice.
    """
    if not isinstance(given, Mapping):
        raise BadInput(f"{where} must be an object")
    found: dict[str, Any] = {}
    for key, value in given.items():
        name, unit = _split(str(key), lengths)
        if name not in known or (name in lengths and unit is None):
            choices = sorted(f"{each}_seconds" if each in lengths else each for each in known)
            raise BadInput(
                f"{where} has an unknown key {str(key)[:80]!r}: it takes {', '.join(choices) or 'nothing'}"
            )
        if name in found:
            raise BadInput(f"{where} gives {name!r} twice")
        found[name] = value if unit is None else seconds_of(str(key), value, unit)
    return found


def _split(key: str, lengths: frozenset[str]) -> tuple[str, str | None]:
    stem, _, unit = key.rpartition("_")
    if unit in SECONDS and stem in lengths:
        return stem, unit
    return key, None


def _guardrails(given: object, config: Mapping[str, Any]) -> tuple[Guardrail, ...]:
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
    )  # fmt: skip
    for key in given:
        if key not in allowed:
            raise BadInput(f"a guardrail has an unknown key {key!r}: it takes {', '.join(allowed)}")
    metric = given["metric"]
    query = given.get("query", "")
    source = given.get("source", "prometheus" if query else "")
    if query or source:
        return _external(metric, given, str(source), query)
    known_metric(metric)
    ratio, increase, level = given.get("max_ratio"), given.get("max_increase"), given.get("max")
    if metric in ABSOLUTE_ONLY and (ratio is not None or increase is not None):
        raise BadInput(f"{metric} has no ratio or increase: give it 'max'")
    if metric == "sample_ratio" and any(each is not None for each in (ratio, increase, level)):
        raise BadInput("sample_ratio has no margin: it is the routing itself that it checks")
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
        base = Guardrail(
            metric,
            None if ratio is None else _number("max_ratio", ratio, low=1.0, high=1000.0),
            None if increase is None else _number("max_increase", increase, low=0.0, high=1.0),
            None if level is None else _number("max", level, low=0.0, high=1e12),
        )
    weight = given.get("weight")
    return msgspec.structs.replace(
        base,
        weight=None if weight is None else _number("weight", weight, low=1e-6, high=1e6),
        dry_run=_flag("dry_run", given.get("dry_run", False)),
    )


def _external(metric: str, given: Mapping[str, Any], source: str, query: object) -> Guardrail:
    """A reading of a metric source: it has a level, and no arms to compare."""
    if source != "prometheus":
        raise BadInput(f"there is no metric source {source!r}: use 'prometheus'")
    if not isinstance(query, str) or not query.strip():
        raise BadInput(f"give the guardrail {metric!r} its 'query'")
    if metric in KNOWN or metric in LATER:
        raise BadInput(f"{metric!r} is hotswap's own metric: give the query another name")
    if given.get("max") is None or given.get("max_ratio") is not None:
        raise BadInput(f"a query is compared with a level: give the guardrail {metric!r} its 'max'")
    return Guardrail(
        metric,
        maximum=_number("max", given["max"], low=-1e12, high=1e12),
        dry_run=_flag("dry_run", given.get("dry_run", False)),
        source=source,
        query=query,
    )


def _objectives(given: object) -> tuple[Objective, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise BadInput("objectives must be a list of objects")
    found = []
    for each in given:
        if not isinstance(each, Mapping) or not isinstance(each.get("metric"), str):
            raise BadInput("each objective is an object with 'metric'")
        unknown = set(each) - {"metric", "min_improvement"}
        if unknown:
            raise BadInput(f"an objective has an unknown key {min(map(str, unknown))!r}")
        known_metric(each["metric"])
        if each["metric"] not in PROVABLE:
            raise BadInput(
                f"{each['metric']} cannot be shown better: objectives are {', '.join(PROVABLE)}"
            )
        least = _number("min_improvement", each.get("min_improvement", 0), low=0.0, high=0.99)
        found.append(Objective(each["metric"], least))
    return tuple(found)


def _number(name: str, value: object, *, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadInput(f"{name} must be a number from {low:g} to {high:g}, not {str(value)[:40]!r}")
    return float(value)


def _count(name: str, value: object, *, least: int = 0, most: int = 10**9) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadInput(f"{name} must be a whole number from {least} to {most}")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadInput(f"{name} must be true or false")
    return value


def _choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise BadInput(f"{name} must be one of {', '.join(choices)}, not {str(value)[:40]!r}")
    return str(value)
