"""Strategies compiled to steps: one list that one machine carries out. Pure.

A plan is short and explicit. What a step needs to know stands in the step, so that a plan can be
shown, stored and carried out again without its strategy.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hotswap.core.durations import spoken
from hotswap.core.routing import WHOLE
from hotswap.core.strategy import DEFAULTS, RolloutSpec, configuration

#: The largest weight at which a twin can have the candidate's share.
HALF: Final = WHOLE // 2


class SetWeight(msgspec.Struct, frozen=True, tag="set_weight"):
    """Let the candidate answer ``weight`` (of `WHOLE`) of the requests."""

    weight: int


class Mirror(msgspec.Struct, frozen=True, tag="mirror"):
    """Ask the candidate ``share`` (of `WHOLE`) of stable's requests too; stable answers."""

    share: int


class Pair(msgspec.Struct, frozen=True, tag="pair"):
    """Ask both every request; the candidate answers ``weight`` (of `WHOLE`)."""

    weight: int


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """Stay for so many seconds."""

    seconds: float


class Requests(msgspec.Struct, frozen=True, tag="requests"):
    """Stay until the candidate has had so many requests (or pairs) in this stage."""

    count: int


class Approval(msgspec.Struct, frozen=True, tag="approval"):
    """Stay until a person says go on."""


class Analyse(msgspec.Struct, frozen=True, tag="analyse"):
    """Stay until every guardrail is shown to be within its margin and every objective met.

    ``metric``: this alone must come to a verdict, and either one will do (a test).
    """

    metric: str = ""


class Adapt(msgspec.Struct, frozen=True, tag="adapt"):
    """Let the weight follow the evidence between ``low`` and ``high`` (of `WHOLE`), until one arm
    is shown better in ``metric`` or ``seconds`` are over.
    """

    metric: str
    low: int
    high: int
    seconds: float


class Promote(msgspec.Struct, frozen=True, tag="promote"):
    """The candidate becomes stable. ``proof``: only if it is shown to be no worse."""

    proof: bool = True


class Bake(msgspec.Struct, frozen=True, tag="bake"):
    """Keep the version before warm for so many seconds, and go back to it at any alarm."""

    seconds: float


class End(msgspec.Struct, frozen=True, tag="end"):
    """Over: stable stays stable. ``metric``: what the test was about, for the last sentence."""

    metric: str = ""


Step = (
    SetWeight | Mirror | Pair | Hold | Requests | Approval | Analyse | Adapt | Promote | Bake | End
)


def parts(percentage: float) -> int:
    """A percentage in `WHOLE`, at least 1.

    >>> parts(5), parts(0.001)
    (500, 1)
    """
    return max(1, min(WHOLE, round(percentage * WHOLE / 100)))


def compile_steps(spec: RolloutSpec) -> tuple[Step, ...]:
    """The steps of a strategy. The gate that asks for proof stands where most can be seen: at
    the last weight of at most one half, at which a twin has as much traffic as the candidate.

    >>> from hotswap.core.strategy import parse
    >>> body = {"model": "m", "version": "v2", "strategy": "immediate", "bake_seconds": 60}
    >>> compile_steps(parse(body))
    (Promote(proof=False), Bake(seconds=60.0))
    """
    if spec.steps:
        return _explicit(spec)
    return _of(spec, spec.strategy, spec.config)


def _of(spec: RolloutSpec, strategy: str, config: dict[str, Any]) -> tuple[Step, ...]:
    bake = Bake(spec.bake_seconds)
    if strategy == "immediate":
        return Promote(proof=False), bake
    if strategy == "gradual":
        count = config["steps"]
        hold = Hold(config["duration"] / count)
        weights = [parts(100 * number / count) for number in range(1, count)]
        return *_ramp(weights, (hold,), config["require_proof"]), bake
    if strategy == "canary":
        hold = Hold(config["evaluation_period"])
        return *_ramp(_canary_weights(config), (hold,), config["require_proof"]), bake
    if strategy == "ab_test":
        test: tuple[Step, ...] = (
            SetWeight(parts(config["traffic_percentage"])),
            Hold(config["test_duration"]),
        )
        if config["promote_winner"]:
            return *test, Analyse(config["target_metric"]), Promote(), bake
        return *test, End(config["target_metric"])
    if strategy == "shadow":
        shadow = (Mirror(parts(config["sample_percentage"])), Requests(config["min_requests"]))
        if config["then"] is None:
            return *shadow, End()
        return *shadow, *_of(spec, config["then"], config["then_config"])
    if strategy == "champion_challenger":
        pair: tuple[Step, ...] = (
            Pair(parts(config["challenger_percentage"])),
            Requests(config["min_pairs"]),
        )
        return (*pair, Analyse(), Promote(), bake) if config["promote"] else (*pair, End())
    adapt = Adapt(
        config["target_metric"],
        parts(config["min_percentage"]),
        parts(config["max_percentage"]),
        config["duration"],
    )
    # Where it ends up there may be little to compare with: the rest is shown where it began.
    even = SetWeight(min(max(HALF, adapt.low), adapt.high))
    return even, adapt, even, Analyse(), Promote(), bake


def _canary_weights(config: dict[str, Any]) -> list[int]:
    """Initial, then step by step to the greatest; all requests is the promotion itself."""
    weights = []
    weight, most = config["initial_percentage"], config["max_percentage"]
    while weight < most and weight < 100:
        weights.append(parts(weight))
        weight += config["step_percentage"]
    if most < 100:
        weights.append(parts(most))
    return sorted(set(weights)) or [parts(min(config["initial_percentage"], 50.0))]


def _ramp(weights: list[int], stay: tuple[Step, ...], proof: bool) -> tuple[Step, ...]:
    """Each weight with its stay; the gate at the last weight of at most one half."""
    if not weights:
        return (Promote(proof=False),) if not proof else (SetWeight(HALF), Analyse(), Promote())
    gate = max((w for w in weights if w <= HALF), default=weights[0])
    steps: list[Step] = []
    for weight in weights:
        steps += [SetWeight(weight), *stay]
        if proof and weight == gate:
            steps.append(Analyse())
    steps.append(Promote(proof))
    return tuple(steps)


def _explicit(spec: RolloutSpec) -> tuple[Step, ...]:
    """A weight that is followed by no stay of its own stays for the evaluation period."""
    config = configuration("canary", {}) if spec.strategy == "gradual" else spec.config
    period = config.get("evaluation_period", DEFAULTS["canary"]["evaluation_period"])
    proof = spec.config.get("require_proof", True)
    weights = [parts(step["weight"]) for step in spec.steps if "weight" in step]
    gate = max((w for w in weights if w <= HALF), default=weights[0] if weights else 0)
    steps: list[Step] = []
    exposed = 0  # the weight whose stages the next steps belong to
    for number, given in enumerate(spec.steps):
        following = spec.steps[number + 1] if number + 1 < len(spec.steps) else {"weight": 0.0}
        moves = "weight" in given or "shadow" in given
        if "weight" in given:
            exposed = parts(given["weight"])
            if exposed == WHOLE:
                continue  # every request: that is the promotion itself
            steps.append(SetWeight(exposed))
        elif "shadow" in given:
            steps.append(Mirror(parts(given["shadow"])))
        elif "hold" in given:
            steps.append(Hold(given["hold"]))
        elif "requests" in given:
            steps.append(Requests(given["requests"]))
        else:
            steps.append(Approval())
        last = "weight" in following or "shadow" in following
        if moves and last:
            steps.append(Hold(period))
        if last and proof and exposed and exposed == gate:
            steps.append(Analyse())
    if not weights:
        return *steps, End()
    return *steps, Promote(proof), Bake(spec.bake_seconds)


def label(step: Step) -> str:
    """A step in a few words.

    >>> label(SetWeight(500)), label(Hold(90))
    ('candidate at 5 %', 'hold 1 min 30 s')
    """
    if isinstance(step, SetWeight):
        return f"candidate at {step.weight / 100:g} %"
    if isinstance(step, Mirror):
        return f"shadow {step.share / 100:g} %"
    if isinstance(step, Pair):
        return f"both answer, candidate's counts at {step.weight / 100:g} %"
    if isinstance(step, Hold):
        return f"hold {spoken(step.seconds)}"
    if isinstance(step, Requests):
        return f"{step.count} requests"
    if isinstance(step, Approval):
        return "approval"
    if isinstance(step, Analyse):
        return f"verdict on {step.metric}" if step.metric else "proof that it is no worse"
    if isinstance(step, Adapt):
        return f"bandit on {step.metric}, {step.low / 100:g} to {step.high / 100:g} %"
    if isinstance(step, Promote):
        return "promote"
    if isinstance(step, Bake):
        return f"bake {spoken(step.seconds)}"
    return "end"


def kind(step: Step) -> str:
    """A step's kind, as it is called in the API.

    >>> kind(SetWeight(1)), kind(End())
    ('set_weight', 'end')
    """
    return str(type(step).__struct_config__.tag)
