"""What an operator asks of a rollout: the body of a start, checked and with its defaults. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hotswap.core.durations import SECONDS, seconds_of
from hotswap.core.fields import choice, count, flag, number
from hotswap.core.guards import (
    DEFAULT_GUARDRAILS,
    Guardrail,
    Objective,
    parse_guardrails,
    parse_objectives,
)
from hotswap.core.metric_names import LABELLED, PROVABLE, known_metric
from hotswap.core.naming import check_name
from hotswap.core.plan_steps import parse_steps
from hotswap.errors import BadInput

__all__ = [
    "DEFAULTS",
    "DEFAULT_GUARDRAILS",
    "ON_INSUFFICIENT",
    "ON_RUNNING",
    "STRATEGIES",
    "Guardrail",
    "Objective",
    "RolloutSpec",
    "configuration",
    "durations",
    "parse",
]

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

_MOST_STEPS: Final = 200
_DURATIONS: Final = frozenset({"duration", "evaluation_period", "test_duration"})

ON_RUNNING: Final = ("refuse", "replace", "queue")
ON_INSUFFICIENT: Final = ("hold", "extend", "rollback")


class RolloutSpec(msgspec.Struct, frozen=True):
    """What is wanted, with every default filled in. Percentages as given, durations in seconds.

    ``steps``: given explicitly, else empty. ``deadline_seconds``: how long a step may wait for
    evidence before ``on_insufficient``. ``budget_ms``: how long the candidate may take before
    stable answers for it, None: ten times stable's p99, 100 ms to 5 s. ``watch_seconds``: how long the
    new stable is watched after the bake. ``force``: also for a version that was rolled back.
    ``label_maturity_seconds``: how long after a request its label may come and still be counted.
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
    label_maturity_seconds: float = 86400.0


_KEYS: Final = frozenset(
    {
        "model", "version", "strategy", "config", "steps", "guardrails", "objectives", "alpha",
        "on_running", "on_insufficient", "bake", "watch", "deadline", "min_requests",
        "budget_ms", "key_input", "seed", "force", "idempotency_key", "label_maturity",
    }
)  # fmt: skip
_BODY_DURATIONS: Final = frozenset({"bake", "watch", "deadline", "label_maturity"})


class RolloutDefaults(msgspec.Struct, frozen=True):
    """What a server's own settings say where a body says nothing. As in `RolloutSpec`."""

    alpha: float = 0.05
    on_running: str = "refuse"
    on_insufficient: str = "hold"
    bake_seconds: float = 600.0
    watch_seconds: float = 3600.0
    deadline_seconds: float = 86400.0
    budget_ms: float | None = None
    label_maturity_seconds: float = 86400.0


_DEFAULTS: Final = RolloutDefaults()


def parse(body: Mapping[str, Any], defaults: RolloutDefaults = _DEFAULTS) -> RolloutSpec:
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
    config = configuration(strategy, _config(fields))
    steps = parse_steps(fields["steps"]) if fields.get("steps") is not None else ()
    if steps and strategy not in ("canary", "gradual"):
        raise BadInput(
            f"steps go with the strategies canary and gradual: {strategy} makes its own from its config"
        )
    if steps:
        _check_explicit(strategy, _config(fields), steps, config)
    guardrails = parse_guardrails(fields.get("guardrails"))
    objectives = parse_objectives(fields.get("objectives"))
    _check_seen(strategy, config, steps, guardrails)
    _check_guarded(strategy, config, steps, guardrails, objectives)
    if objectives:
        _check_aims(strategy, config)
        if strategy == "champion_challenger" and any(
            each.metric in ("error_rate", "invalid_rate") and each.min_improvement > 0
            for each in objectives
        ):
            raise BadInput(
                "pairs show who fails more often, not by how much: leave min_improvement out"
            )
    if fields.get("deadline", 1.0) < 1.0:
        raise BadInput("deadline_seconds must be at least 1: nothing can be shown in no time")
    given = fields.get("seed")
    if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
        raise BadInput("seed must be a whole number")
    budget = fields.get("budget_ms", defaults.budget_ms)
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
        alpha=number("alpha", fields.get("alpha", defaults.alpha), low=1e-6, high=0.5),
        on_running=choice("on_running", fields.get("on_running", defaults.on_running), ON_RUNNING),
        on_insufficient=choice(
            "on_insufficient",
            fields.get("on_insufficient", defaults.on_insufficient),
            ON_INSUFFICIENT,
        ),
        bake_seconds=fields.get("bake", defaults.bake_seconds),
        watch_seconds=fields.get("watch", defaults.watch_seconds),
        deadline_seconds=fields.get("deadline", defaults.deadline_seconds),
        min_requests=count("min_requests", fields.get("min_requests", 0)),
        budget_ms=None if budget is None else number("budget_ms", budget, low=1, high=300_000),
        key_input=key_input,
        seed=given,
        force=flag("force", fields.get("force", False)),
        label_maturity_seconds=fields.get("label_maturity", defaults.label_maturity_seconds),
    )


def _config(fields: Mapping[str, Any]) -> Any:
    """What is given; `configuration` refuses what is no object."""
    return {} if fields.get("config") is None else fields["config"]


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
            # Routing knows hundredths of a percent.
            config[name] = round(number(name, value, low=0.01, high=100.0), 2)
        elif name in ("steps", "min_requests", "min_pairs"):
            config[name] = count(name, value, least=1, most=100 if name == "steps" else 10**9)
        elif name == "max_error_rate_threshold":
            config[name] = None if value is None else number(name, value, low=0.0, high=1.0)
        elif name in ("promote", "promote_winner", "require_proof"):
            config[name] = flag(name, value)
        elif name == "target_metric":
            known_metric(value)
            if strategy == "bandit" and value in LABELLED:
                raise BadInput(
                    f"a bandit moves its weights by what it sees at once, and {value} comes with "
                    "labels: use ab_test or champion_challenger"
                )
            if value not in (*PROVABLE, *LABELLED):
                raise BadInput(
                    f"target_metric {value!r} cannot be compared between arms here: "
                    f"use one of {', '.join((*PROVABLE, *LABELLED))}"
                )
    _check_config(strategy, config)
    return config


def _check_config(strategy: str, config: dict[str, Any]) -> None:
    if strategy == "canary":
        room = config["max_percentage"] - config["initial_percentage"]
        if room < 0:
            raise BadInput("initial_percentage must not be above max_percentage")
        if room > _MOST_STEPS * config["step_percentage"]:
            raise BadInput(f"step_percentage makes more than {_MOST_STEPS} steps: raise it")
    if strategy == "ab_test" and config["traffic_percentage"] == 100.0:
        raise BadInput("traffic_percentage 100 leaves the stable version nothing to be compared by")
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


def _check_explicit(
    strategy: str,
    given: Mapping[str, Any],
    steps: tuple[dict[str, Any], ...],
    config: Mapping[str, Any],
) -> None:
    """Steps and what would make other steps contradict one another."""
    early = any("shadow" in step or step.get("weight", 100.0) < 100.0 for step in steps)
    if config["require_proof"] and not early:
        raise BadInput(
            "steps that begin with weight 100 leave nothing to prove anything by: put a weight of "
            "at most 50 before it, set require_proof to false, or use the strategy immediate"
        )
    making = {
        "canary": ("initial_percentage", "step_percentage", "max_percentage"),
        "gradual": ("steps", "duration", "duration_seconds", "duration_minutes", "duration_hours"),
    }[strategy]
    clash = [name for name in making if name in given]
    if clash:
        raise BadInput(f"give either steps or {clash[0]}: they contradict one another")


def _follower(strategy: str, config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The strategy that may promote, and its configuration."""
    if strategy == "shadow" and config["then"] is not None:
        return config["then"], config["then_config"]
    return strategy, config


def _check_seen(
    strategy: str,
    config: Mapping[str, Any],
    steps: tuple[dict[str, Any], ...],
    guardrails: tuple[Guardrail, ...],
) -> None:
    """Refuse guardrails on what such a rollout never sees."""
    last, _ = _follower(strategy, config)
    pairs = strategy == "shadow" or last == "champion_challenger"
    pairs = pairs or any("shadow" in step for step in steps)
    split = last not in ("immediate", "shadow") and (not steps or any("weight" in s for s in steps))
    for guardrail in guardrails:
        if guardrail.metric == "disagreement" and not pairs:
            raise BadInput(
                f"disagreement needs requests that both versions answer, and {strategy} has none: "
                "use shadow, champion_challenger, or a step with shadow_percentage"
            )
        if guardrail.metric == "auc" and not pairs:
            raise BadInput(
                f"auc compares how both versions rank the same requests, and {strategy} has none "
                "that both answer: use shadow, champion_challenger, or a step with shadow_percentage"
            )
        if guardrail.metric == "reward" and not split:
            raise BadInput(
                f"a reward is of the answer that was given, and in {strategy} that is always "
                "stable's: use a strategy that divides the requests"
            )
        if guardrail.metric == "prediction_drift" and not split:
            raise BadInput(
                f"prediction_drift compares two arms of requests, and {strategy} has none: "
                "use disagreement, or a strategy that divides the requests"
            )


def _promotes_by_evidence(strategy: str, config: Mapping[str, Any]) -> bool:
    last, settings = _follower(strategy, config)
    decides = last in ("canary", "gradual", "bandit", "ab_test", "champion_challenger")
    return decides and all(
        settings.get(name, True) for name in ("promote", "promote_winner", "require_proof")
    )


def _check_guarded(
    strategy: str,
    config: Mapping[str, Any],
    steps: tuple[dict[str, Any], ...],
    guardrails: tuple[Guardrail, ...],
    objectives: tuple[Objective, ...],
) -> None:
    """Refuse to ask for proof where there is nothing that could be proved."""
    last, _ = _follower(strategy, config)
    promotes = _promotes_by_evidence(strategy, config) and last != "ab_test"  # it shows its target
    promotes = promotes and (not steps or any("weight" in step for step in steps))
    acting = any(
        each.required and not each.dry_run and each.metric != "sample_ratio" for each in guardrails
    )
    if promotes and not acting and not objectives:
        free = ", or set require_proof to false" if "require_proof" in DEFAULTS[last] else ""
        raise BadInput(
            "no guardrail here has to be kept, so nothing would be shown before the promotion: "
            f"give one beside sample_ratio that is required and not dry_run{free}"
        )


def _check_aims(strategy: str, config: Mapping[str, Any]) -> None:
    """Refuse objectives where nothing is promoted by evidence."""
    if not _promotes_by_evidence(strategy, config):
        raise BadInput(
            f"objectives must be met to promote, and this {strategy} promotes nothing by evidence: "
            "leave them out, or choose a strategy or setting that does"
        )


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
