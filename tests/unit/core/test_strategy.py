"""A rollout's body: every default, and every unknown, wrong or contradictory key refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.core.strategy import DEFAULT_GUARDRAILS, STRATEGIES, RolloutSpec, parse
from hotswap.errors import BadInput


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "version": "v2", "strategy": "canary", **fields}


def parsed(**fields: Any) -> RolloutSpec:
    return parse(body(**fields))


DEFAULTS = {
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
    "shadow": {"sample_percentage": 100.0, "min_requests": 1000, "then": None, "then_config": None},
    "champion_challenger": {"challenger_percentage": 10.0, "min_pairs": 1000, "promote": True},
    "bandit": {
        "target_metric": "error_rate",
        "min_percentage": 5.0,
        "max_percentage": 95.0,
        "duration": 86400.0,
    },
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_has_the_defaults_of_the_contract(strategy: str) -> None:
    """Without a config every strategy has its documented defaults."""
    assert parsed(strategy=strategy).config == DEFAULTS[strategy]


def test_the_body_has_the_defaults_of_the_contract() -> None:
    """Everything that is left out has its documented default."""
    spec = parsed()
    assert (spec.alpha, spec.on_running, spec.on_insufficient) == (0.05, "refuse", "hold")
    assert (spec.bake_seconds, spec.seed, spec.force) == (600.0, None, False)
    assert (spec.guardrails, spec.objectives, spec.steps) == (DEFAULT_GUARDRAILS, (), ())


def test_the_default_guardrails_are_those_of_the_contract() -> None:
    """Errors to 1.5 times, latency to 1.2 times, invalid outputs and the split, without asking."""
    margins = {each.metric: each.max_ratio for each in DEFAULT_GUARDRAILS}
    assert margins == {
        "error_rate": 1.5, "latency": 1.2, "invalid_rate": 1.5, "sample_ratio": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given_as", "seconds"),
    [
        ({"evaluation_period_minutes": 2}, 120.0),
        ({"evaluation_period_seconds": 2.5}, 2.5),
        ({"evaluation_period_hours": 1}, 3600.0),
    ],
)
def test_durations_come_in_every_unit(given_as: dict[str, float], seconds: float) -> None:
    """Seconds, minutes and hours of one duration are all accepted."""
    assert parsed(config=given_as).config["evaluation_period"] == seconds


@pytest.mark.parametrize(
    ("unit", "seconds"), [("seconds", 1.0), ("minutes", 60.0), ("hours", 3600.0)]
)
@pytest.mark.parametrize("name", ["bake", "watch", "deadline"])
def test_the_bodys_durations_come_in_every_unit(name: str, unit: str, seconds: float) -> None:
    """The bake, the watch and the deadline too."""
    assert getattr(parsed(**{f"{name}_{unit}": 2}), f"{name}_seconds") == 2 * seconds


def test_steps_make_a_canary() -> None:
    """Steps without a strategy are a canary's."""
    assert parse({"model": "m", "version": "v2", "steps": [5, 50]}).strategy == "canary"


REFUSED: list[tuple[dict[str, Any], str]] = [
    # unknown keys, at every level
    ({"colour": 1}, "unknown key 'colour'"),
    ({"bake": 1}, "unknown key 'bake'"),
    ({"config": {"speed": 1}}, "unknown key 'speed'"),
    ({"config": {"evaluation_period": 1}}, "unknown key 'evaluation_period'"),
    ({"strategy": "immediate", "config": {"steps": 1}}, "it takes nothing"),
    ({"guardrails": [{"metric": "error_rate", "limit": 1}]}, "unknown key 'limit'"),
    ({"objectives": [{"metric": "error_rate", "by": 1}]}, "unknown key 'by'"),
    ({"steps": [{"wait": 1}]}, "unknown key 'wait'"),
    # missing or of the wrong type
    ({"model": None}, "give 'model'"),
    ({"version": 3}, "give 'version'"),
    ({"version": "../v2"}, "version"),
    ({"strategy": "yolo"}, "strategy must be one of"),
    ({"strategy": ["canary"]}, "strategy must be one of"),
    ({"config": [1]}, "must be an object"),
    ({"seed": 1.5}, "seed"),
    ({"seed": True}, "seed"),
    ({"force": 1}, "force must be true or false"),
    ({"key_input": ""}, "key_input"),
    ({"budget_ms": 0}, "budget_ms"),
    ({"min_requests": -1}, "min_requests"),
    ({"min_requests": 1.0}, "min_requests"),
    ({"on_running": "maybe"}, "on_running must be one of"),
    ({"on_insufficient": "promote"}, "on_insufficient must be one of"),
    # out of range, and no numbers at all
    ({"alpha": 0}, "alpha"),
    ({"alpha": 0.9}, "alpha"),
    ({"alpha": float("nan")}, "alpha"),
    ({"alpha": True}, "alpha"),
    ({"alpha": "0.05"}, "alpha"),
    ({"bake_seconds": -1}, "bake_seconds"),
    ({"bake_seconds": float("nan")}, "bake_seconds"),
    ({"bake_seconds": float("inf")}, "bake_seconds"),
    ({"bake_seconds": 10**400}, "bake_seconds"),
    ({"bake_hours": 10_000}, "bake_hours"),
    ({"deadline_seconds": 0}, "deadline_seconds must be at least 1"),
    ({"config": {"initial_percentage": 0}}, "initial_percentage"),
    ({"config": {"initial_percentage": 101}}, "initial_percentage"),
    ({"config": {"max_error_rate_threshold": 5}}, "max_error_rate_threshold"),
    ({"config": {"require_proof": "no"}}, "require_proof"),
    ({"config": {"step_percentage": 0.01}}, "more than 200 steps"),
    ({"strategy": "gradual", "config": {"steps": 0}}, "steps"),
    ({"strategy": "gradual", "config": {"steps": 2.0}}, "steps"),
    ({"strategy": "shadow", "config": {"min_requests": 0}}, "min_requests"),
    ({"strategy": "bandit", "config": {"target_metric": "accuracy"}}, "comes with labels"),
    ({"strategy": "bandit", "config": {"target_metric": "speed"}}, "there is no metric"),
    ({"strategy": "ab_test", "config": {"target_metric": "disagreement"}}, "cannot be compared"),
    # contradictions
    ({"bake_seconds": 1, "bake_minutes": 1}, "twice"),
    ({"config": {"initial_percentage": 50, "max_percentage": 10}}, "must not be above"),
    ({"strategy": "bandit", "config": {"min_percentage": 95}}, "must be below"),
    ({"strategy": "shadow", "config": {"then_config": {}}}, "needs 'then'"),
    ({"strategy": "shadow", "config": {"then": "shadow"}}, "'then' must be one of"),
    ({"strategy": "shadow", "config": {"then": "canary", "then_config": {"x": 1}}}, "'x'"),
    ({"steps": [5], "config": {"initial_percentage": 5}}, "contradict"),
    ({"strategy": "gradual", "steps": [5], "config": {"duration_minutes": 5}}, "contradict"),
    ({"strategy": "shadow", "steps": [5]}, "makes its own"),
    ({"strategy": "immediate", "steps": [5]}, "makes its own"),
    # steps
    ({"steps": []}, "steps"),
    ({"steps": "5,25"}, "steps must be a list"),
    ({"steps": [25, 5]}, "must grow"),
    ({"steps": [5, 5]}, "must grow"),
    ({"steps": [0]}, "percentage"),
    ({"steps": [101]}, "percentage"),
    ({"steps": [True]}, "step 1"),
    ({"steps": [{"weight": 5, "hold_seconds": 1}]}, "step 1"),
    ({"steps": [5, {"shadow_percentage": 10}]}, "before the first weight"),
    ({"steps": [{"hold_seconds": 5}]}, "at least one weight"),
    ({"steps": [{"approval": False}, 5]}, "approval must be true"),
    ({"steps": [{"requests": 0}, 5]}, "requests"),
    ({"steps": [5, 100, {"hold_seconds": 60}]}, "nothing can follow weight 100"),
    ({"steps": [5, 100, {"approval": True}]}, "nothing can follow weight 100"),
    ({"steps": [100]}, "leave nothing to prove"),
    ({"steps": list(range(1, 202))}, "200"),
    # guardrails and objectives
    ({"guardrails": {}}, "list"),
    ({"guardrails": ["error_rate"]}, "object with 'metric'"),
    ({"guardrails": [{"metric": "error_rate"}, {"metric": "error_rate"}]}, "given twice"),
    ({"guardrails": [{"metric": "auc"}]}, "none that both answer"),
    ({"strategy": "shadow", "guardrails": [{"metric": "reward", "max_increase": 1}]}, "always"),
    ({"guardrails": [{"metric": "reward"}]}, "give the guardrail 'reward' its 'max_increase'"),
    ({"guardrails": [{"metric": "accuracy", "max": 0.9}]}, "has no level"),
    ({"guardrails": [{"metric": "accuracy", "max_ratio": 2}]}, "how much of it may be lost"),
    ({"guardrails": [{"metric": "accuracy", "max_increase": 2}]}, "max_increase"),
    ({"guardrails": [{"metric": "rmse", "max_increase": 2}]}, "compared as a ratio"),
    ({"guardrails": [{"metric": "mae", "max_ratio": 2, "max_increase": 1}]}, "either"),
    ({"guardrails": [{"metric": "accuracy", "required": "no"}]}, "required"),
    ({"guardrails": [{"metric": "accuracy", "required": False}]}, "is required and not dry_run"),
    ({"label_maturity_seconds": -1}, "label_maturity_seconds"),
    ({"guardrails": [{"metric": "cpu"}]}, "there is no metric"),
    ({"guardrails": [{"metric": "error_rate", "max_ratio": 0.5}]}, "max_ratio"),
    ({"guardrails": [{"metric": "error_rate", "max": 5}]}, "max"),
    ({"guardrails": [{"metric": "error_rate", "weight": 0}]}, "weight"),
    ({"guardrails": [{"metric": "error_rate", "dry_run": "yes"}]}, "dry_run"),
    ({"guardrails": [{"metric": "latency", "max_increase": 0.1}]}, "max_ratio"),
    ({"guardrails": [{"metric": "sample_ratio", "max": 0.1}]}, "no margin"),
    ({"guardrails": [{"metric": "sample_ratio", "weight": 2}]}, "no weight"),
    ({"guardrails": [{"metric": "disagreement", "max": 0.1}]}, "both versions answer"),
    ({"strategy": "shadow", "guardrails": [{"metric": "disagreement"}]}, "its 'max'"),
    (
        {"strategy": "shadow", "guardrails": [{"metric": "disagreement", "max_ratio": 2}]},
        "no ratio",
    ),
    ({"strategy": "shadow", "guardrails": [{"metric": "disagreement", "max": 0}]}, "max"),
    (
        {"strategy": "shadow", "guardrails": [{"metric": "prediction_drift", "max": 0.1}]},
        "two arms",
    ),
    ({"guardrails": [{"metric": "cpu", "query": "up"}]}, "its 'max'"),
    ({"guardrails": [{"metric": "cpu", "query": "", "source": "prometheus"}]}, "'query'"),
    ({"guardrails": [{"metric": "cpu", "query": "up", "source": "x", "max": 1}]}, "no metric source"),
    ({"guardrails": [{"metric": "latency", "query": "up", "max": 1}]}, "another name"),
    ({"guardrails": [{"metric": "cpu", "query": "up", "max": 1, "max_ratio": 2}]}, "max_ratio"),
    ({"guardrails": [{"metric": "cpu", "query": "up", "max": 1, "max_increase": 2}]}, "max_increase"),
    ({"guardrails": [{"metric": "cpu", "query": "up", "max": 1, "weight": 2}]}, "weight"),
    ({"guardrails": [{"metric": "a b", "query": "up", "max": 1}]}, "metric"),
    ({"objectives": [{"metric": "disagreement"}]}, "cannot be shown better"),
    ({"objectives": [{"metric": "error_rate"}, {"metric": "error_rate"}]}, "given twice"),
    ({"objectives": [{"metric": "error_rate", "min_improvement": 1}]}, "min_improvement"),
    ({"strategy": "immediate", "objectives": [{"metric": "latency"}]}, "promotes nothing"),
    ({"strategy": "ab_test", "objectives": [{"metric": "latency"}]}, "promotes nothing"),
    ({"strategy": "shadow", "objectives": [{"metric": "latency"}]}, "promotes nothing"),
    (
        {"config": {"require_proof": False}, "objectives": [{"metric": "latency"}]},
        "promotes nothing",
    ),
    ({"guardrails": []}, "nothing would be shown"),
    ({"guardrails": [], "strategy": "champion_challenger"}, "nothing would be shown"),
    ({"guardrails": [{"metric": "sample_ratio"}]}, "nothing would be shown"),
    ({"guardrails": [{"metric": "error_rate", "dry_run": True}]}, "or set require_proof to false"),
    ({"guardrails": [], "strategy": "shadow", "config": {"then": "canary"}}, "nothing would be shown"),
    ({"strategy": "ab_test", "config": {"traffic_percentage": 100}}, "nothing to be compared"),
    ({"strategy": "ab_test", "config": {"traffic_percentage": 99.999}}, "nothing to be compared"),
    ({"strategy": "bandit", "config": {"min_percentage": 50, "max_percentage": 50.001}}, "below"),
    ({"steps": [99.999]}, "leave nothing to prove anything by"),
    ({"steps": [5, 5.001]}, "must grow"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "why"), REFUSED)
def test_what_cannot_be_honoured_is_refused_with_the_reason(
    fields: dict[str, Any], why: str
) -> None:
    """Nothing unsupported or contradictory is ignored: one sentence says what is wrong."""
    with pytest.raises(BadInput) as caught:
        parsed(**fields)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


ACCEPTED: list[dict[str, Any]] = [
    {"guardrails": [], "config": {"require_proof": False}},
    {"guardrails": [], "objectives": [{"metric": "latency"}]},
    {"guardrails": [], "strategy": "ab_test", "config": {"promote_winner": True}},
    {"guardrails": [], "strategy": "shadow"},
    {"guardrails": [], "strategy": "immediate"},
    {"guardrails": [{"metric": "error_rate", "max": 0.05}]},
    {"guardrails": [{"metric": "invalid_rate", "max": 0}]},
    {"guardrails": [{"metric": "latency_p99", "max": 200, "max_ratio": 1.5}]},
    {"guardrails": [{"metric": "cpu", "query": "up", "max": -1}]},
    {
        "guardrails": [
            {"metric": "prediction_drift", "max": 0.1, "dry_run": True}, {"metric": "error_rate"},
        ]
    },
    {"steps": [{"shadow_percentage": 10}], "guardrails": [{"metric": "disagreement", "max": 0.1}]},
    {"strategy": "champion_challenger", "guardrails": [{"metric": "disagreement", "max": 0.1}]},
    {"strategy": "ab_test", "config": {"promote_winner": True}, "objectives": [{"metric": "latency"}]},
    {"strategy": "shadow", "config": {"then": "canary"}, "objectives": [{"metric": "latency"}]},
    {"steps": [5, {"hold_hours": 1}, {"requests": 10}, {"approval": True}, 50, 100]},
    {"steps": [{"shadow_percentage": 10}, {"requests": 10}, 100]},
    {"steps": [100], "config": {"require_proof": False}},
    {"config": {"max_error_rate_threshold": None}},
    {"alpha": 0.5, "seed": 7, "on_running": "queue", "on_insufficient": "rollback"},
]  # fmt: skip


@pytest.mark.parametrize("fields", ACCEPTED)
def test_what_can_be_honoured_is_taken(fields: dict[str, Any]) -> None:
    """Every documented form of a body is accepted."""
    assert parsed(**fields).model == "m"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(
    ["config", "steps", "guardrails", "objectives", "alpha", "on_running", "on_insufficient",
     "bake_seconds", "watch_minutes", "deadline_hours", "min_requests", "budget_ms", "key_input",
     "seed", "force", "idempotency_key", "strategy", "model", "version"]
)  # fmt: skip


@given(st.dictionaries(KEYS, JSON, max_size=4), st.sampled_from(STRATEGIES))
def test_any_json_is_either_taken_or_refused_in_a_sentence(
    fields: dict[str, Any], strategy: str
) -> None:
    """Whatever the body holds, the only error it can cause is one that says what to give."""
    asked = {"model": "m", "version": "v2", "strategy": strategy, **fields}
    with contextlib.suppress(BadInput):
        assert isinstance(parse(asked), RolloutSpec)


@pytest.mark.parametrize("config", [[], 0, "", False])
def test_a_config_that_is_no_object_is_refused(config: object) -> None:
    """Also where it is empty."""
    with pytest.raises(BadInput, match="must be an object"):
        parse({"model": "m", "version": "v2", "strategy": "canary", "config": config})
