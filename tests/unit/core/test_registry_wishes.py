"""What a registry's aliases ask for, decided one step at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hotswap.core.registry_views import Listed
from hotswap.core.registry_wishes import (
    Activate,
    Letter,
    Local,
    Memory,
    Step,
    Stop,
    Try,
    activated,
    challenge,
    judged,
    key_of,
    local_name,
    next_step,
    stopped,
    told,
    tried,
    verdict_of,
)
from hotswap.core.rollout_views import RolloutView
from hotswap.errors import BadInput

replace = msgspec.structs.replace


def rollout(id: str, version: str, phase: str = "Progressing", **more: Any) -> RolloutView:
    final = phase in ("Healthy", "Completed", "RolledBack", "Failed", "Degraded")
    values: dict[str, Any] = {"stable": "1", "reason": "guardrail", "created_at": 100.0} | more
    return RolloutView(
        id=id, model="m", version=version, strategy="champion_challenger", phase=phase, message="",
        generation=1, attempt=1, step=0, steps=(), weights={}, metrics=(), history=(), counts={},
        elapsed_seconds=0.0, step_seconds=0.0, bake_seconds=0.0, alpha=0.05, final=final,
        updated_at=0.0, spec={}, **values,
    )  # fmt: skip


def listed(stable: str | None = None, candidate: str | None = None, **more: Any) -> Listed:
    return Listed("m", stable, candidate, **more)


def memory(stable: str | None = None, candidate: str | None = None, **more: Any) -> Memory:
    return Memory("m", "m", aliased=True, stable=stable, candidate=candidate, **more)


def step(seen: Listed, kept: Memory, active: str | None, *going: RolloutView) -> Step:
    return next_step(seen, kept, Local(active, going))


def test_the_first_look_activates_then_tries() -> None:
    """Stable first, since a candidate needs something to be tried beside."""
    seen, kept = listed("1", "2"), Memory("m", "m")
    first = step(seen, kept, None)
    assert first.wish == Activate("1")
    kept = activated(first.memory, "1")
    second = step(seen, kept, "1")
    assert second.wish == Try("2", "refuse")
    kept = tried(second.memory, "2", "r1")
    assert (kept.moves, kept.rollout, kept.aliased) == (1, "r1", True)
    assert step(seen, kept, "1", rollout("r1", "2")).wish is None


def test_what_was_acted_upon_is_not_redone() -> None:
    """A switch by hand, a rollback and a restart are respected until the alias moves."""
    kept = memory("1", "2", rollout="r1")
    assert step(listed("1", "2"), kept, "3").wish is None
    assert step(listed("1", "2"), kept, "1").wish is None
    assert step(listed("3", "2"), kept, "1").wish == Activate("3")


def test_an_alias_on_what_is_active_already_is_only_remembered() -> None:
    """As after a promotion that a person then writes into the registry."""
    done = step(listed("2", "2"), memory("1", "2"), "2")
    assert (done.wish, done.memory.stable) == (None, "2")


def test_the_registrys_own_rollout_gives_way_to_a_moved_alias() -> None:
    """The stable alias takes it back; the candidate's replaces it."""
    own = rollout("r1", "2")
    kept = memory("1", "2", rollout="r1")
    assert step(listed("3", "2"), kept, "1", own).wish == Activate("3", replace=True)
    assert step(listed("1", "3"), kept, "1", own).wish == Try("3", "replace")


@pytest.mark.parametrize("phase", ["Baking", "Promoting", "RollingBack"])
def test_a_candidate_waits_for_the_end_of_what_is_past_its_trial(phase: str) -> None:
    """Replacing a rollout that bakes would take its promotion back."""
    kept = memory("1", "2", rollout="r1")
    assert step(listed("1", "3"), kept, "1", rollout("r1", "2", phase)).wish == Try("3", "queue")


def test_a_queued_candidate_that_is_overtaken_ends_first() -> None:
    """So that what bakes before it is left alone."""
    kept = memory("1", "3", rollout="r2")
    queued = rollout("r2", "3", "Preparing")
    bakes = rollout("r1", "2", "Baking", idempotency_key="registry/m/2/0")
    done = step(listed("1", "4"), kept, "2", queued, bakes)
    assert isinstance(done.wish, Stop)
    assert done.wish.rollout == "r2"
    assert step(listed("4", "3"), kept, "2", queued, bakes).wish == Activate("4", replace=True)


def test_a_rollout_is_the_registrys_by_its_key_too() -> None:
    """Control may end between the start of one and remembering it."""
    kept = memory("1")
    own = rollout("r1", "2", idempotency_key=key_of(kept, "2"))
    assert step(listed("1", "2"), kept, "1", own).wish == Try("2", "replace")
    assert step(listed("3", "2"), kept, "1", own).wish == Activate("3", replace=True)
    assert key_of(tried(kept, "2", "r1"), "2") != own.idempotency_key


def test_rollouts_of_others_are_not_touched() -> None:
    """Both aliases wait for them, and say so."""
    theirs = rollout("x", "9")
    stable = step(listed("3"), memory("1"), "1", theirs)
    assert stable.wish is None
    assert "rollout x runs" in stable.notes[0]
    assert stable.memory.stable == "1"
    candidate = step(listed("1", "2"), memory("1"), "1", theirs)
    assert candidate.wish is None
    assert "rollout x runs" in candidate.notes[0]
    waiting = step(listed("1", "3"), memory("1", "2", rollout="r"), "1", theirs, rollout("r", "2"))
    assert waiting.wish is None  # theirs waits for its end: replacing it would end theirs too


def test_a_removed_candidate_is_withdrawn_while_it_is_on_trial() -> None:
    """Promoted, it stays; nothing of others is aborted."""
    kept = memory("1", "2", rollout="r1")
    done = step(listed("1"), kept, "1", rollout("r1", "2"))
    assert isinstance(done.wish, Stop)
    assert stopped(kept).candidate is None
    for going in ((rollout("r1", "2", "Baking"),), (rollout("x", "2"),), ()):
        left = step(listed("1"), kept, "1", *going)
        assert left.wish is None
        assert left.memory.candidate is None


def test_two_aliases_on_one_version_start_nothing() -> None:
    """A running rollout of what the alias left ends; when they part again it is tried."""
    both = step(listed("1", "1"), memory("1"), "1")
    assert both.wish is None
    assert "nothing to try" in both.notes[0]
    assert both.memory.candidate is None
    kept = memory("1", "2", rollout="r1")
    assert isinstance(step(listed("1", "1"), kept, "1", rollout("r1", "2")).wish, Stop)
    assert step(listed("2", "1"), memory("2"), "2").wish == Try("1", "refuse")


def test_a_candidate_needs_an_active_version() -> None:
    """There would be nothing to compare it with."""
    done = step(listed(None, "2"), memory(), None)
    assert done.wish is None
    assert "no active version" in done.notes[0]


def test_stages_count_until_there_is_an_alias() -> None:
    """An alias that is removed later does not bring the stages back."""
    staged = listed(production="3", staging="4")
    assert step(staged, Memory("m", "m"), None).wish == Activate("3")
    done = step(replace(staged, stable="1"), Memory("m", "m"), "1")
    assert done.memory.aliased
    assert done.memory.stable == "1"
    left = step(staged, done.memory, "1")
    assert left.wish is None
    assert "no version is the stable one" in left.notes[0]


def test_what_is_gone_in_the_registry_serves_on() -> None:
    """And it is said: the version, or the model."""
    gone = step(listed(gone=("1",)), memory("1"), "1")
    assert (gone.wish, gone.memory.stable) == (None, "1")
    assert "version 1 was deleted" in gone.notes[0]
    missing = step(listed(missing=True), memory("1"), "1")
    assert missing.wish is None
    assert "has no model" in missing.notes[0]
    assert step(listed(), memory(), None).notes == ()


def test_a_rollouts_body_is_the_operators_but_for_what_is_decided_here() -> None:
    """The percentage is a setting; keys that would contradict are refused."""
    body = challenge("m", "2", 5.0, {"config": {"min_pairs": 7}, "alpha": 0.1})
    assert body["config"] == {"min_pairs": 7, "challenger_percentage": 5.0}
    assert (body["strategy"], body["alpha"]) == ("champion_challenger", 0.1)
    for wrong in (
        {"model": "x"}, {"strategy": "canary"}, {"on_running": "queue"}, {"config": [1]},
        {"config": {"challenger_percentage": 3}}, {"nonsense": 1}, {"config": {"nonsense": 1}},
    ):  # fmt: skip
        with pytest.raises(BadInput):
            challenge("m", "2", 5.0, wrong)


@pytest.mark.parametrize(
    ("phase", "verdict"),
    [
        ("Preparing", None), ("Progressing", None), ("Paused", None), ("Promoting", None),
        ("RollingBack", None), ("Baking", "promoted"), ("Healthy", "promoted"),
        ("RolledBack", "rolled back: guardrail"), ("Completed", "completed"), ("Failed", "failed"),
        ("Degraded", "degraded"),
    ],
)  # fmt: skip
def test_a_verdict_is_told_once_it_is_decided(phase: str, verdict: str | None) -> None:
    """A promotion already while it bakes."""
    assert verdict_of(rollout("r", "2", phase)) == verdict


def test_a_promotion_moves_the_alias_and_taking_it_back_moves_it_back() -> None:
    """Each verdict is told once."""
    kept = memory("1", "2")
    bakes = [rollout("r", "2", "Baking")]
    kept = judged(kept, bakes, ["1", "2"], "2", write=True)
    assert kept.letters == (Letter("r", "2", "promoted", "1", "2"),)
    assert judged(kept, bakes, ["1", "2"], "2", write=True) == kept
    kept = told(kept, kept.letters[0], "2")
    assert (kept.letters, kept.stable) == ((), "2")
    assert judged(kept, [rollout("r", "2", "Healthy")], ["1", "2"], "2", write=True) == kept
    kept = judged(kept, [rollout("r", "2", "RolledBack")], ["1", "2"], "1", write=True)
    assert kept.letters == (Letter("r", "2", "rolled back: guardrail", "2", "1"),)
    assert told(kept, kept.letters[0], None).stable == "2"


@pytest.mark.parametrize(("phase", "active"), [("RolledBack", "3"), ("Degraded", "2")])
def test_the_alias_is_not_moved_back_to_what_does_not_serve(phase: str, active: str) -> None:
    """Where another version was forced in its bake, or the way back failed."""
    numbered = ["1", "2", "3"]
    kept = judged(memory("1"), [rollout("r", "2", "Baking")], numbered, "2", write=True)
    kept = told(kept, kept.letters[0], "2")
    kept = judged(kept, [rollout("r", "2", phase)], numbered, active, write=True)
    assert [(each.move_from, each.move_to) for each in kept.letters] == [("", "")]
    assert kept.stable == "2"


def test_a_promotion_that_was_not_told_yet_needs_no_way_back() -> None:
    """The verdict takes the place of the one before."""
    kept = judged(memory("1"), [rollout("r", "2", "Baking")], ["1", "2"], "2", write=True)
    kept = judged(kept, [rollout("r", "2", "RolledBack")], ["1", "2"], "1", write=True)
    assert kept.letters == (Letter("r", "2", "rolled back: guardrail"),)


def test_a_later_promotion_overtakes_one_that_is_not_told() -> None:
    """Only the last moves the alias, and from where it stands."""
    kept = judged(memory("1"), [rollout("r", "2", "Healthy")], ["2", "3"], "2", write=True)
    both = [rollout("s", "3", "Baking", stable="2"), rollout("r", "2", "Healthy")]
    kept = judged(kept, both, ["2", "3"], "3", write=True)
    assert kept.letters == (
        Letter("r", "2", "promoted"),
        Letter("s", "3", "promoted", "1", "3"),
    )


def test_what_is_not_the_registrys_is_not_told() -> None:
    """Versions from elsewhere, rollouts from before, promotions left since, stages' aliases."""
    bakes = [rollout("r", "2", "Baking")]
    assert judged(memory("1"), bakes, ["1"], "2", write=True).letters == ()
    assert judged(memory("1", since=200.0), bakes, ["2"], "2", write=True).letters == ()
    left = judged(memory("1"), bakes, ["2"], "7", write=True)
    assert left.letters == (Letter("r", "2", "promoted"),)
    staged = judged(Memory("m", "m", stable="1"), bakes, ["2"], "2", write=True)
    assert staged.letters == (Letter("r", "2", "promoted"),)


def test_without_leave_to_write_nothing_is_kept_for_later() -> None:
    """Given it later, what was decided before is not told then."""
    bakes = [rollout("r", "2", "Baking")]
    kept = judged(memory("1"), bakes, ["2"], "2", write=False)
    assert kept.letters == ()
    assert judged(kept, bakes, ["2"], "2", write=True).letters == ()


def test_verdicts_of_long_ago_are_forgotten() -> None:
    """What is kept stays small."""
    many = [rollout(f"r{n}", "2", "RolledBack") for n in range(80)]
    kept = judged(memory("1"), many, ["2"], "1", write=False)
    assert len(kept.verdicts) == 50


def test_names_are_mapped_where_they_must_be() -> None:
    """Valid ones stay; others become valid, and differ where the originals do."""
    assert local_name("a.b_c-1") == "a.b_c-1"
    mapped = {local_name(name) for name in ("a b", "a  b", "ä", "..", "x" * 300, "-", "a..b")}
    assert len(mapped) == 7
    for name in mapped:
        assert local_name(name) == name
