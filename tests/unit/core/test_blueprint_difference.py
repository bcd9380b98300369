"""What `apply` would have to do, in every state that a server can be in."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hotswap.core.blueprint import Blueprint as File
from hotswap.core.blueprint import Gate, Replay, WantedModel, WantedVersion, key_of
from hotswap.core.blueprint_difference import Action, Present, by_model, changed, difference
from hotswap.core.rollout_views import RolloutView
from hotswap.core.views import ModelView, VersionView

BODY = {"version": "v2", "strategy": "canary"}
KEY = key_of("m", BODY)
WANTED = WantedModel({"v1": WantedVersion("/m/v1"), "v2": WantedVersion("/m/v2")}, "v1", BODY, None)


def _version(version: str, **changes: Any) -> VersionView:
    view = VersionView(
        version, "sha256:" + version * 30, "sklearn", "REGISTERED", "", 0.0, 0, 0, None, "", {}, "",
        False, f"/m/{version}", 0.0, "",
    )  # fmt: skip
    return msgspec.structs.replace(view, **changes)


def _model(*versions: VersionView, active: str | None = None, name: str = "m") -> ModelView:
    return ModelView(name, active, None, 1, None, versions)


def _rollout(phase: str, **changes: Any) -> RolloutView:
    view = RolloutView(
        "r-1", "m", "v2", "v1", "canary", phase, "", "so it is", 1, 1, 0, (), {}, (), (), {}, 0.0,
        0.0, 0.0, 0.05, False, 0.0, 0.0, {}, idempotency_key=KEY,
    )  # fmt: skip
    return msgspec.structs.replace(view, **changes)


def _differ(
    model: ModelView | None,
    *rollouts: RolloutView,
    wanted: WantedModel = WANTED,
    contents: dict[tuple[str, str], str] | None = None,
    **flags: bool,
) -> dict[str, Action]:
    """The actions by what they are about."""
    present = Present({} if model is None else {"m": model}, {"m": rollouts}, contents or {})
    return {each.what: each for each in difference(File({"m": wanted}), present, **flags)}


BOTH = (_version("v1"), _version("v2"))
SERVING = _model(*BOTH, active="v1")


def test_an_empty_server_is_given_all_of_it() -> None:
    """In order: versions, then who is stable, then the rollout."""
    actions = list(_differ(None).values())
    assert [(each.kind, each.what) for each in actions] == [
        ("register", "v1"),
        ("register", "v2"),
        ("switch", "stable"),
        ("rollout", "rollout"),
    ]
    assert actions[0].body == {"version": "v1", "uri": "/m/v1"}
    assert "none is active yet" in actions[2].sentence
    assert actions[3].body == BODY | {"model": "m", "idempotency_key": KEY}


def test_what_a_version_is_given_is_sent_and_nothing_else() -> None:
    """Defaults stay the server's."""
    version = WantedVersion("/x", "onnx", {"a": 1}, "new", in_place=True)
    body = _differ(None, wanted=WantedModel({"v1": version}))["v1"].body
    assert body == {
        "version": "v1",
        "uri": "/x",
        "runtime": "onnx",
        "metadata": {"a": 1},
        "changelog": "new",
        "in_place": True,
    }


def test_a_server_that_has_it_is_left_as_it_is() -> None:
    """While the rollout runs there is nothing to do, and it is known which it is."""
    actions = _differ(SERVING, _rollout("Progressing"))
    assert not changed(actions.values())
    assert actions["v1"].sentence.startswith("registered, sha256:v1v1")
    assert (actions["rollout"].kind, actions["rollout"].rollout) == ("follow", "r-1")
    assert "so it is" in actions["rollout"].sentence
    quiet = _differ(SERVING, _rollout("Paused", message=""))["rollout"]
    assert quiet.sentence == "v2: rollout r-1 is Paused"


def test_after_the_promotion_there_is_nothing_to_do() -> None:
    """The file may still name the version before as stable."""
    actions = _differ(_model(*BOTH, active="v2"), _rollout("Healthy"))
    assert not changed(actions.values())
    assert "v1: v2 is active, which the file rolls out" in actions["stable"].sentence
    assert (actions["rollout"].kind, actions["rollout"].rollout) == ("keep", "r-1")
    baking = _differ(_model(*BOTH, active="v2"), _rollout("Baking"))
    assert baking["rollout"].kind == "follow"
    assert not changed(baking.values())


@pytest.mark.parametrize("phase", ["", "RolledBack", "Failed", "Completed"])
def test_what_was_made_active_by_hand_needs_no_rollout(phase: str) -> None:
    """One that ended otherwise before says nothing of it any more: nobody waits for it."""
    before = [_rollout(phase)] if phase else []
    by_hand = _differ(_model(*BOTH, active="v2"), *before)
    assert not changed(by_hand.values())
    assert (by_hand["rollout"].kind, by_hand["rollout"].rollout) == ("keep", "")


def test_a_candidate_that_is_active_since_the_way_back_failed_is_told() -> None:
    """Nobody chose it: whoever waits hears how its rollout ended."""
    stuck = _differ(_model(*BOTH, active="v2"), _rollout("Degraded"))["rollout"]
    assert (stuck.kind, stuck.rollout) == ("keep", "r-1")


def test_a_shadow_that_is_over_is_over() -> None:
    """It had nothing to promote."""
    assert _differ(SERVING, _rollout("Completed"))["rollout"].kind == "keep"


@pytest.mark.parametrize("phase", ["RolledBack", "Failed"])
def test_what_ended_badly_is_said_and_begun_again_only_if_asked(phase: str) -> None:
    """With ``retry``, as the next attempt of the same rollout."""
    refused = _differ(SERVING, _rollout(phase))["rollout"]
    assert refused.kind == "refused"
    assert f"v2 ended {phase} in rollout r-1: so it is" in refused.sentence
    assert "--retry" in refused.sentence
    again = _differ(SERVING, _rollout(phase), retry=True)["rollout"]
    assert (again.kind, again.rollout) == ("retry", "r-1")


def test_what_was_promoted_and_taken_back_later_needs_a_new_rollout() -> None:
    """Forced, as it was rolled back from, and under a key of its own."""
    taken_back = _rollout("Healthy")
    refused = _differ(SERVING, taken_back)["rollout"]
    assert refused.kind == "refused"
    assert "is active no more" in refused.sentence
    again = _differ(SERVING, taken_back, retry=True)["rollout"]
    assert again.kind == "rollout"
    assert again.body == BODY | {"model": "m", "idempotency_key": f"{KEY}.1", "force": True}
    running = _rollout("Progressing", id="r-2", idempotency_key=f"{KEY}.1")
    follow = _differ(SERVING, running, taken_back)["rollout"]
    assert (follow.kind, follow.rollout) == ("follow", "r-2")


def test_another_body_is_another_rollout() -> None:
    """Also of a version that was rolled back before."""
    changed_body = msgspec.structs.replace(WANTED, rollout=BODY | {"alpha": 0.1})
    action = _differ(SERVING, _rollout("RolledBack"), wanted=changed_body)["rollout"]
    assert action.kind == "rollout"
    assert action.body["idempotency_key"] != KEY


def test_a_rollout_beside_another_is_refused_unless_the_body_says_otherwise() -> None:
    """As the server would."""
    other = _rollout("Progressing", id="r-9", version="v7", idempotency_key="")
    refused = _differ(SERVING, other)["rollout"]
    assert refused.kind == "refused"
    assert "rollout r-9 to v7 is Progressing" in refused.sentence
    wanted = msgspec.structs.replace(WANTED, rollout=BODY | {"on_running": "queue"})
    assert _differ(SERVING, other, wanted=wanted)["rollout"].kind == "rollout"


def test_versions_never_change() -> None:
    """Other content, or another runtime, under a registered id is refused."""
    contents = {("m", "v1"): BOTH[0].digest, ("m", "v2"): "sha256:" + "e" * 64}
    actions = _differ(SERVING, contents=contents)
    assert (actions["v1"].kind, actions["v2"].kind) == ("keep", "refused")
    assert "versions never change" in actions["v2"].sentence
    runtime = WantedModel({"v1": WantedVersion("/m/v1", runtime="onnx")})
    assert "runtime sklearn, not onnx" in _differ(SERVING, wanted=runtime)["v1"].sentence
    compiled = _model(_version("v1", metadata={"compiled_from": "sha256:" + "e" * 64}))
    original = {("m", "v1"): "sha256:" + "e" * 64}
    only = WantedModel({"v1": WantedVersion("/m/v1")})
    assert _differ(compiled, wanted=only, contents=original)["v1"].kind == "keep"


def test_a_version_from_elsewhere_is_known_by_its_uri() -> None:
    """Its content cannot be looked at; where it could be, that counts and not the place."""
    view = _model(_version("v1", uri="s3://models/old/v1"), _version("v2", uri="models:/m/2"))
    moved = WantedModel(
        {"v1": WantedVersion("s3://models/new/v1"), "v2": WantedVersion("models:/m/9")}
    )
    actions = _differ(view, wanted=moved)
    assert {each.kind for each in actions.values()} == {"refused"}
    assert actions["v1"].sentence == (
        "v1 is registered from s3://models/old/v1, not s3://models/new/v1: versions never change, so give it "
        "another id, or leave out all that the file says of it"
    )
    same = WantedModel(
        {"v1": WantedVersion("s3://models/old/v1"), "v2": WantedVersion("models:/m@x")}
    )
    assert not changed(_differ(view, wanted=same).values())
    assert {each.kind for each in _differ(view, wanted=same).values()} == {"keep"}
    local = WantedModel({"v1": WantedVersion("/m/v1")})
    seen = {("m", "v1"): view.versions[0].digest}
    assert _differ(view, wanted=local, contents=seen)["v1"].kind == "keep"
    assert _differ(view, wanted=local)["v1"].kind == "refused"
    unknown = _model(_version("v1", uri=""))
    assert _differ(unknown, wanted=moved)["v1"].kind == "keep"


def test_a_version_that_is_to_be_converted_is_known_by_its_runtime() -> None:
    """The file names what the original runs in."""
    wanted = WantedModel({"v1": WantedVersion("/m/v1", runtime="sklearn", compile="onnx")})
    refused = _differ(_model(_version("v1")), wanted=wanted)["v1"]
    assert refused.kind == "refused"
    assert "with the runtime sklearn, not onnx" in refused.sentence
    assert _differ(_model(_version("v1", runtime="onnx")), wanted=wanted)["v1"].kind == "keep"


def test_what_was_said_of_a_version_stays() -> None:
    """Another changelog or metadata is no change, and is told."""
    same = WantedModel({"v1": WantedVersion("/m/v1", changelog="a", metadata={"k": 1})})
    view = _model(_version("v1", changelog="a", metadata={"k": 1, "more": 2}))
    assert "stay" not in _differ(view, wanted=same)["v1"].sentence
    other = WantedModel({"v1": WantedVersion("/m/v1", changelog="b", metadata={"k": 2})})
    action = _differ(view, wanted=other)["v1"]
    assert action.kind == "keep"
    assert "its changelog and metadata stay as they were registered" in action.sentence


def test_what_nobody_has_is_refused() -> None:
    """A version without uri that is not registered, as stable, to roll out, or listed."""
    wanted = WantedModel({"v1": WantedVersion()}, "v8", {"version": "v9", "strategy": "immediate"})
    actions = _differ(_model(active="v3"), wanted=wanted)
    assert {each.kind for each in actions.values()} == {"refused"}
    assert "v1 is not registered: give its uri" in actions["v1"].sentence
    assert "v8 is not registered" in actions["stable"].sentence
    assert "v9 is not registered" in actions["rollout"].sentence


def test_a_rollout_needs_a_version_to_begin_beside() -> None:
    """Nobody is active, and the file names nobody."""
    wanted = msgspec.structs.replace(WANTED, stable=None)
    action = _differ(_model(*BOTH), wanted=wanted)["rollout"]
    assert action.kind == "refused"
    assert "name one as stable" in action.sentence


def test_who_is_stable() -> None:
    """It is switched to where no rollout decides; what a rollout decided is not undone silently."""
    v3 = _model(*BOTH, _version("v3"), active="v3")
    alone = msgspec.structs.replace(WANTED, rollout=None)
    switch = _differ(v3, wanted=alone)["stable"]
    assert (switch.kind, switch.sentence) == ("switch", "v1: switch from v3 to it")
    assert _differ(v3)["stable"].kind == "switch"
    promoted = _rollout("Healthy", version="v3", idempotency_key="")
    refused = _differ(v3, promoted)["stable"]
    assert refused.kind == "refused"
    assert "name v3 as stable, or go back first with 'hotswap switch m v1'" in refused.sentence
    running = _rollout("Progressing", version="v4", idempotency_key="")
    assert "wait for its end" in _differ(v3, running, wanted=alone)["stable"].sentence
    assert _differ(SERVING, wanted=alone)["stable"].sentence == "v1: it is active"


def test_what_the_file_does_not_name_is_left_alone() -> None:
    """And pruned only if asked, only without weight, only where the file lists versions."""
    roles = [
        ("v3", "previous", 0.0),
        ("v4", "candidate", 0.0),
        ("v5", "", 5.0),
        ("v6", "resident", 0.0),
    ]
    more = [_version(name, role=role, weight=weight) for name, role, weight in roles]
    model = _model(*BOTH, *more, active="v1")
    left = _differ(model)
    assert {left[name].kind for name, *_ in roles} == {"leave"}
    pruned = _differ(model, prune=True)
    assert {name: pruned[name].kind for name, *_ in roles} == {
        "v3": "leave", "v4": "leave", "v5": "leave", "v6": "remove",
    }  # fmt: skip
    assert pruned["v3"].sentence == "kept: a rollback leads to it"
    assert pruned["v5"].sentence == "kept: it has traffic"
    unlisted = msgspec.structs.replace(WANTED, versions={})
    assert _differ(model, wanted=unlisted, prune=True)["v6"].kind == "leave"
    others = Present({"n": _model(active="v1", name="n")})
    (action,) = difference(File({}), others, prune=True)
    assert (action.model, action.kind) == ("n", "leave")


def test_the_gate_is_told() -> None:
    """What a version must pass before its rollout, in words."""
    gate = Gate(max_latency_ms=5, max_memory_mb=100, replay=Replay())
    wanted = msgspec.structs.replace(WANTED, gate=gate)
    sentence = _differ(SERVING, wanted=wanted)["rollout"].sentence
    assert sentence == (
        "roll v2 out (canary, after its gate: signature, samples, latency ≤ 5 ms, "
        "memory ≤ 100 MiB, replay)"
    )
    bare = msgspec.structs.replace(WANTED, gate=Gate(), rollout={"version": "v2", "steps": [50]})
    sentence = _differ(SERVING, wanted=bare)["rollout"].sentence
    assert sentence == "roll v2 out (canary, after its gate: signature, samples)"


def test_actions_are_grouped_by_model() -> None:
    """In the file's order, and in theirs."""
    actions = difference(File({"b": WANTED, "a": WANTED}), Present())
    grouped = by_model(actions)
    assert list(grouped) == ["b", "a"]
    assert [each.what for each in grouped["a"]] == ["v1", "v2", "stable", "rollout"]
