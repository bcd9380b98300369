"""Every strategy compiled to steps, with its gate where most can be seen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.core.plan import (
    HALF,
    Adapt,
    Analyse,
    Approval,
    Bake,
    End,
    Hold,
    Mirror,
    Pair,
    Promote,
    Requests,
    SetWeight,
    Step,
    compile_steps,
    kind,
    label,
    parts,
)
from hotswap.core.routing import WHOLE
from hotswap.core.strategy import STRATEGIES, parse


def plan(**body: Any) -> tuple[Step, ...]:
    return compile_steps(parse({"model": "m", "version": "v2", "bake_seconds": 60, **body}))


BAKE = Bake(60.0)


def test_immediate_promotes_and_bakes() -> None:
    """A plain switch is a rollout of one step and a bake."""
    assert plan(strategy="immediate") == (Promote(proof=False), BAKE)


def test_gradual_goes_in_equal_steps() -> None:
    """Four equal steps in an hour: three weights of a quarter of an hour, and the promotion."""
    quarter = Hold(900.0)
    assert plan(strategy="gradual") == (
        SetWeight(2500), quarter, SetWeight(5000), quarter, Analyse(), SetWeight(7500), quarter,
        Promote(), BAKE,
    )  # fmt: skip


def test_canary_rises_from_its_first_weight_by_its_step() -> None:
    """5, 20, 35, 50, 65, 80 and 95 percent, with the gate at one half."""
    steps = plan(strategy="canary")
    weights = [step.weight for step in steps if isinstance(step, SetWeight)]
    assert weights == [500, 2000, 3500, 5000, 6500, 8000, 9500]
    at = steps.index(SetWeight(HALF))
    assert steps[at : at + 3] == (SetWeight(HALF), Hold(300.0), Analyse())
    assert steps[-2:] == (Promote(), BAKE)
    assert [step for step in steps if isinstance(step, Analyse)] == [Analyse()]


def test_canary_without_proof_has_no_gate() -> None:
    """With require_proof off nothing is asked for, as the operator said."""
    steps = plan(strategy="canary", config={"require_proof": False})
    assert not any(isinstance(step, Analyse) for step in steps)
    assert Promote(proof=False) in steps


def test_a_canary_that_begins_with_all_is_compared_at_one_half_first() -> None:
    """Nothing can be proved at 100 percent, so the proof is sought at one half."""
    steps = plan(strategy="canary", config={"initial_percentage": 100})
    assert steps == (SetWeight(HALF), Hold(300.0), Analyse(), Promote(), BAKE)


def test_the_greatest_percentage_is_the_last_weight() -> None:
    """max_percentage ends the ramp; the promotion follows."""
    config = {"initial_percentage": 10, "step_percentage": 15, "max_percentage": 30}
    steps = plan(strategy="canary", config=config)
    assert [step.weight for step in steps if isinstance(step, SetWeight)] == [1000, 2500, 3000]


def test_ab_test_ends_without_promotion_unless_told() -> None:
    """A test ends with a verdict; only promote_winner makes the winner stable."""
    shown = SetWeight(HALF), Hold(86400.0)
    assert plan(strategy="ab_test") == (*shown, End("error_rate"))
    winner = plan(strategy="ab_test", config={"promote_winner": True, "target_metric": "latency"})
    assert winner == (*shown, Analyse("latency"), Promote(), BAKE)


def test_shadow_ends_or_goes_on() -> None:
    """A shadow ends by itself, or is followed by the strategy of 'then' with its own config."""
    shadow = Mirror(2500), Requests(50)
    config: dict[str, Any] = {"sample_percentage": 25, "min_requests": 50}
    assert plan(strategy="shadow", config=config) == (*shadow, End())
    config |= {"then": "gradual", "then_config": {"steps": 2, "duration_seconds": 10}}
    then = SetWeight(HALF), Hold(5.0), Analyse(), Promote(), BAKE
    assert plan(strategy="shadow", config=config) == (*shadow, *then)


def test_champion_challenger_pairs() -> None:
    """Both see every request until there are enough pairs and a proof."""
    pair = Pair(1000), Requests(1000)
    assert plan(strategy="champion_challenger") == (*pair, Analyse(), Promote(), BAKE)
    ends = plan(strategy="champion_challenger", config={"promote": False})
    assert ends == (*pair, End())


def test_bandit_adapts_between_its_bounds() -> None:
    """The weight moves between the bounds; what is left to prove is shown at one half."""
    even, adapt = SetWeight(HALF), Adapt("error_rate", 500, 9500, 86400.0)
    assert plan(strategy="bandit") == (even, adapt, even, Analyse(), Promote(), BAKE)


def test_explicit_steps_stay_as_long_as_they_say() -> None:
    """A weight with a stay keeps it, a weight without one stays for the evaluation period."""
    steps = plan(
        steps=[{"shadow_percentage": 10}, {"requests": 9}, 5, {"hold_seconds": 7}, 25,
               {"approval": True}, 60]
    )  # fmt: skip
    assert steps == (
        Mirror(1000), Requests(9), SetWeight(500), Hold(7.0), SetWeight(2500), Approval(),
        Analyse(), SetWeight(6000), Hold(300.0), Promote(), BAKE,
    )  # fmt: skip


def test_explicit_shadow_alone_ends() -> None:
    """Steps without a weight promote nothing."""
    assert plan(steps=[{"shadow_percentage": 10}]) == (Mirror(1000), Hold(300.0), End())


PERCENT = st.floats(0.01, 100.0)


@given(
    strategy=st.sampled_from(["canary", "gradual"]),
    weights=st.lists(st.integers(1, 99), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_whatever_the_steps_proof_comes_before_the_promotion(
    strategy: str, weights: list[int]
) -> None:
    """Each ramp asks for proof once on its way, at a weight that is exposed, and again at its end."""
    steps = plan(strategy=strategy, steps=weights)
    kinds = [type(step) for step in steps]
    assert kinds.count(Analyse) == 1
    assert kinds.index(SetWeight) < kinds.index(Analyse) < kinds.index(Promote)
    assert steps[-2:] == (Promote(proof=True), BAKE)
    shown = [step.weight for step in steps if isinstance(step, SetWeight)]
    assert shown == [parts(weight) for weight in weights]


@given(first=PERCENT, step=st.floats(1, 100), most=PERCENT)
def test_a_canarys_weights_only_rise(first: float, step: float, most: float) -> None:
    """No configuration makes a ramp that falls, repeats itself or reaches everything."""
    config = {
        "initial_percentage": min(first, most),
        "step_percentage": step,
        "max_percentage": most,
    }
    steps = plan(strategy="canary", config=config)
    weights = [each.weight for each in steps if isinstance(each, SetWeight)]
    assert weights
    assert weights == sorted(set(weights))
    assert weights[0] > 0
    assert weights[-1] <= WHOLE


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_plan_ends_in_a_bake_or_an_end(strategy: str) -> None:
    """The last step is one that ends, and every step can be named."""
    steps = plan(strategy=strategy)
    assert isinstance(steps[-1], Bake | End)
    assert all(label(step) and kind(step) for step in steps)


def test_the_shortest_duration_is_what_is_held() -> None:
    """Holds and the bake add up; evidence and people are not waited for."""
    steps = plan(strategy="gradual")
    assert sum(s.seconds for s in steps if isinstance(s, Hold | Bake)) == 3 * 900.0 + 60.0
