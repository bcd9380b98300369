"""``hotswap.yaml`` as values: what is taken, and where in the file a mistake is."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from hotswap.core.blueprint import Blueprint, Gate, Replay, WantedVersion, key_of, parse
from hotswap.errors import BadInput


def _one(**model: Any) -> Any:
    return parse({"models": {"m": model}}).models["m"]


def test_all_of_it_is_read() -> None:
    """Versions, the stable one, the rollout's body and the gate, with their defaults."""
    wanted = _one(
        versions={"v1": None, "v2": {"uri": "./v2", "metadata": {"auc": 0.9}, "compile": "onnx"}},
        stable="v1",
        rollout={"version": "v2", "strategy": "canary", "bake_minutes": 1},
        gate={"max_latency_ms": 5, "replay": {"since": "7d", "max_disagreement": 0.05}},
    )
    assert wanted.versions == {
        "v1": WantedVersion(),
        "v2": WantedVersion("./v2", metadata={"auc": 0.9}, compile="onnx"),
    }
    assert wanted.stable == "v1"
    assert wanted.rollout == {"version": "v2", "strategy": "canary", "bake_minutes": 1}
    replay = Replay(since_seconds=7 * 86400.0, max_disagreement=0.05)
    assert wanted.gate == Gate(max_latency_ms=5.0, replay=replay)


def test_a_model_may_be_named_alone() -> None:
    """Nothing is wanted of it then."""
    assert parse({"models": {"m": None}}) == Blueprint({"m": _one()})


@pytest.mark.parametrize(
    ("since", "seconds"), [("90 min", 5400.0), ("1.5h", 5400.0), ("30s", 30.0), (60, 60.0)]
)
def test_times_are_read(since: object, seconds: float) -> None:
    """With their unit, or in seconds."""
    gate = _one(rollout={"version": "v2", "steps": [50]}, gate={"replay": {"since": since}}).gate
    assert gate.replay.since_seconds == seconds


ROLLOUT = {"version": "v2", "steps": [5, 50]}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (None, "the file names no model"),
        ([], "the file must be a mapping of keys to values, not a list"),
        ({"models": {}, "url": "x"}, "the file has an unknown key 'url': it takes models"),
        ({"models": {1.0: {}}}, "models: the key 1.0 is a number: write it in quotes"),
        ({"models": {"a b": {}}}, "models: the model name 'a b' is not valid"),
        ({"models": {"m": {"version": "v1"}}}, "models.m has an unknown key 'version'"),
        ({"models": {"m": {"stable": 1.0}}}, "models.m.stable: the version 1.0 is a number"),
        ({"models": {"m": {"stable": True}}}, "models.m.stable: the version True is true or false"),
        ({"models": {"m": {"versions": {"v1": "x"}}}}, "models.m.versions.v1 must be a mapping"),
        (
            {"models": {"m": {"versions": {"v1": {"uri": "x", "url": "y"}}}}},
            "models.m.versions.v1 has an unknown key 'url': it takes uri, runtime",
        ),
        (
            {"models": {"m": {"versions": {"v1": {"runtime": "onnx"}}}}},
            "models.m.versions.v1 gives runtime and no uri",
        ),
        ({"models": {"m": {"versions": {"v1": {"uri": 3}}}}}, "uri must be text, not a number"),
        ({"models": {"m": {"versions": {"v1": {"uri": " "}}}}}, "must be text, not empty text"),
        ({"models": {"m": {"versions": {"v1": {"uri": "${A}/x"}}}}}, "variables are not filled in"),
        (
            {"models": {"m": {"versions": {"v1": {"uri": "x", "compile": "tvm"}}}}},
            "models.m.versions.v1.compile must be onnx",
        ),
        (
            {"models": {"m": {"versions": {"v1": {"uri": "x", "in_place": "yes"}}}}},
            "models.m.versions.v1.in_place must be true or false",
        ),
        (
            {
                "models": {
                    "m": {
                        "versions": {
                            "v1": {"uri": "x", "metadata": {"a": datetime.date(2024, 1, 1)}}
                        }
                    }
                }
            },
            "models.m.versions.v1.metadata holds what JSON cannot",
        ),
        ({"models": {"m": {"rollout": {"version": "v2"}}}}, "models.m.rollout: strategy must be"),
        (
            {"models": {"m": {"rollout": ROLLOUT | {"setps": 1}}}},
            "models.m.rollout: it has an unknown key 'setps'",
        ),
        ({"models": {"m": {"rollout": ROLLOUT | {"model": "m"}}}}, "rollout.model cannot be given"),
        (
            {"models": {"m": {"rollout": ROLLOUT | {"idempotency_key": "k"}}}},
            "rollout.idempotency_key cannot be given: 'apply' makes it",
        ),
        (
            {"models": {"m": {"rollout": ROLLOUT, "stable": "v2"}}},
            "models.m.rollout names v2, which is stable too",
        ),
        ({"models": {"m": {"gate": {"samples": True}}}}, "models.m.gate guards a rollout"),
        (
            {"models": {"m": {"rollout": ROLLOUT, "gate": {"max_latency": 1}}}},
            "models.m.gate has an unknown key 'max_latency'",
        ),
        (
            {"models": {"m": {"rollout": ROLLOUT, "gate": {"max_latency_ms": "5"}}}},
            "models.m.gate.max_latency_ms must be a number",
        ),
        *(
            (
                {"models": {"m": {"rollout": ROLLOUT, "gate": {"replay": {"since": since}}}}},
                "models.m.gate.replay.since must be a time such as 7d",
            )
            for since in ("soon", "0s", True, -1, "900d", ["7d"])
        ),
        (
            {"models": {"m": {"rollout": ROLLOUT, "gate": {"replay": {"max_disagreement": 2}}}}},
            "models.m.gate.replay.max_disagreement must be a number from 0 to 1",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named_by_their_place(raw: object, said: str) -> None:
    """The path in the file, what is wrong, and what is allowed."""
    with pytest.raises(BadInput) as caught:
        parse(raw)
    assert said in caught.value.message


def test_a_rollouts_key_is_its_content() -> None:
    """The order of keys does not matter; the model, the version and every setting do."""
    body = {"version": "v2", "strategy": "canary"}
    key = key_of("m", body)
    assert key == key_of("m", dict(reversed(body.items())))
    others = {key_of("n", body), key_of("m", body | {"alpha": 0.1}), key_of("m", {"version": "v2"})}
    assert len({key, *others}) == 4
    assert len(key) < 100
