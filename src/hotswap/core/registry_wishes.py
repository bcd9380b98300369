"""What a model registry's aliases ask of this server, one step at a time. Pure.

An alias is an order that is given when it moves. What was done upon it is remembered, so that
neither a restart, nor a rollback, nor what an operator does by hand afterwards is undone because
the alias still stands where it stood.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from hotswap.core.naming import check_name
from hotswap.core.registry_views import Listed
from hotswap.core.rollout_views import RolloutView
from hotswap.core.strategy import RolloutSpec, parse
from hotswap.errors import BadInput

#: A rollout in which the candidate is still on trial.
TRIAL: Final = ("Preparing", "Progressing", "Paused")
_OURS: Final = ("model", "version", "strategy", "on_running", "idempotency_key", "force")
_TOLD: Final = 50


class Letter(msgspec.Struct, frozen=True):
    """What the registry is to be told of one rollout.

    ``move_from`` and ``move_to``: of the stable alias; both empty if it stays.
    """

    rollout: str
    version: str
    verdict: str
    move_from: str = ""
    move_to: str = ""


class Memory(msgspec.Struct, frozen=True):
    """What the store keeps of a registered model that is followed.

    ``aliased``: it had one of the aliases, so its stages say nothing any more. ``stable``,
    ``candidate``: what was acted upon last. ``rollout``: the last that was started for a
    candidate. ``moves``: how often one was. ``since``: Unix time when it was first seen.
    ``verdicts``: of its rollouts, as the registry was or is to be told. ``letters``: not told yet.
    """

    name: str
    model: str
    since: float = 0.0
    aliased: bool = False
    stable: str | None = None
    candidate: str | None = None
    rollout: str | None = None
    moves: int = 0
    verdicts: dict[str, str] = {}
    letters: tuple[Letter, ...] = ()


class Local(msgspec.Struct, frozen=True):
    """The model here: its active version, and its rollouts that are not over, the newest first."""

    active: str | None = None
    rollouts: tuple[RolloutView, ...] = ()


class Activate(msgspec.Struct, frozen=True):
    """Make the version the active one; ``replace``: the registry's own rollout gives way."""

    version: str
    replace: bool = False


class Try(msgspec.Struct, frozen=True):
    """Start a rollout of the version; ``on_running`` as a body has it."""

    version: str
    on_running: str = "refuse"


class Stop(msgspec.Struct, frozen=True):
    """Abort the rollout."""

    rollout: str
    why: str


Wish = Activate | Try | Stop


class Step(msgspec.Struct, frozen=True):
    """The next thing to do, if there is one; what is remembered already; what is left alone."""

    wish: Wish | None
    memory: Memory
    notes: tuple[str, ...] = ()


def wanted(listed: Listed, memory: Memory) -> tuple[str | None, str | None]:
    """The (stable, candidate) versions: by alias; by stage where no alias ever was.

    >>> wanted(Listed("m", production="3", staging="4"), Memory("m", "m"))
    ('3', '4')
    >>> wanted(Listed("m", stable="2", production="3", staging="4"), Memory("m", "m"))
    ('2', None)
    """
    if memory.aliased or listed.stable or listed.candidate:
        return listed.stable, listed.candidate
    return listed.production, listed.staging


def next_step(listed: Listed, memory: Memory, local: Local) -> Step:
    """What comes next. Done again after it was done, until there is no wish left."""
    if listed.stable or listed.candidate:
        memory = msgspec.structs.replace(memory, aliased=True)
    stable, candidate = wanted(listed, memory)
    own = [each for each in local.rollouts if _is_own(each, memory)]
    others = [each for each in local.rollouts if not _is_own(each, memory)]
    notes = list(_gone(listed, memory, stable))
    if stable is not None and stable != memory.stable:
        if stable == local.active:
            memory = msgspec.structs.replace(memory, stable=stable)
        elif others:
            notes.append(
                f"version {stable} is to be the active one; it waits, since rollout {others[0].id} "
                "runs, which the registry did not start"
            )
            return Step(None, memory, tuple(notes))
        else:
            return Step(Activate(stable, replace=bool(own)), memory, tuple(notes))
    return _candidate(candidate, stable, memory, local, own, others, notes)


def key_of(memory: Memory, version: str) -> str:
    """The idempotency key of the version's rollout: another one each time that the alias moves."""
    return f"{_own_keys(memory)}{version}/{memory.moves}"


def _own_keys(memory: Memory) -> str:
    return f"registry/{memory.model}/"


def _is_own(view: RolloutView, memory: Memory) -> bool:
    """Whether the registry started it, even if control ended before it could remember that."""
    return view.id == memory.rollout or view.idempotency_key.startswith(_own_keys(memory))


def _candidate(
    candidate: str | None,
    stable: str | None,
    memory: Memory,
    local: Local,
    own: Sequence[RolloutView],
    others: Sequence[RolloutView],
    notes: list[str],
) -> Step:
    trial = next((each for each in own if each.phase in TRIAL), None)
    if candidate == memory.candidate:
        return Step(None, memory, tuple(notes))
    none = candidate is None or candidate in (stable, local.active)
    if none and candidate is not None:
        notes.append(
            f"version {candidate} is both the stable version and the candidate: there is nothing "
            "to try"
        )
    if none:
        if trial is not None:
            why = "the registry names no candidate any more"
            return Step(Stop(trial.id, why), memory, tuple(notes))
        return Step(None, msgspec.structs.replace(memory, candidate=None), tuple(notes))
    assert candidate is not None
    if local.active is None:
        notes.append(f"version {candidate} waits: there is no active version to try it beside")
        return Step(None, memory, tuple(notes))
    if others:
        notes.append(
            f"version {candidate} waits: rollout {others[0].id} runs, which the registry did not "
            "start"
        )
        return Step(None, memory, tuple(notes))
    if trial is not None and len(own) > 1:  # it waits itself, for a bake before it
        return Step(Stop(trial.id, "the registry names another candidate"), memory, tuple(notes))
    how = "replace" if trial is not None else "queue" if own else "refuse"
    return Step(Try(candidate, how), memory, tuple(notes))


def _gone(listed: Listed, memory: Memory, stable: str | None) -> Sequence[str]:
    if listed.missing:
        return (f"the registry has no model {listed.name!r} (any more): what serves goes on",)
    if memory.stable is not None and memory.stable in listed.gone:
        return (f"version {memory.stable} was deleted in the registry: what serves goes on",)
    if stable is None and memory.stable is not None:
        return ("no version is the stable one in the registry any more: what serves goes on",)
    return ()


def activated(memory: Memory, version: str) -> Memory:
    """After `Activate` was done."""
    return msgspec.structs.replace(memory, stable=version)


def tried(memory: Memory, version: str, rollout: str) -> Memory:
    """After `Try` was done."""
    return msgspec.structs.replace(
        memory, candidate=version, rollout=rollout, moves=memory.moves + 1
    )


def stopped(memory: Memory) -> Memory:
    """After `Stop` was done: whatever is the candidate next has not been acted upon."""
    return msgspec.structs.replace(memory, candidate=None)


def challenge(
    model: str, version: str, percentage: float, more: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The body of a candidate's rollout. Raises `BadInput` for what ``more`` must not hold.

    >>> challenge("m", "3", 5.0, {"bake_seconds": 0})["config"]
    {'challenger_percentage': 5.0}
    """
    more = dict(more or {})
    for name in _OURS:
        if name in more:
            raise BadInput(f"{name!r} is decided here: leave it out")
    config = more.pop("config", None) or {}
    if not isinstance(config, Mapping):
        raise BadInput("the config must be an object")
    if "challenger_percentage" in config:
        raise BadInput("'challenger_percentage' is the setting registry_percentage: leave it out")
    body = {
        **more,
        "model": model,
        "version": version,
        "strategy": "champion_challenger",
        "config": {**config, "challenger_percentage": percentage},
    }
    _: RolloutSpec = parse(body)
    return body


def verdict_of(view: RolloutView) -> str | None:
    """What came of a rollout, in a word or two; None while it is not decided."""
    if view.phase in ("Baking", "Healthy"):
        return "promoted"
    if view.phase == "RolledBack":
        return f"rolled back: {view.reason}"
    return {"Completed": "completed", "Failed": "failed", "Degraded": "degraded"}.get(view.phase)


def judged(
    memory: Memory,
    rollouts: Sequence[RolloutView],
    numbered: Sequence[str],
    active: str | None,
    *,
    write: bool,
) -> Memory:
    """With letters about what was decided since, of versions that came from the registry.

    ``rollouts``: all of the model, the newest first. ``numbered``: the versions that are the
    registry's own. ``write``: letters are wanted; else it is only remembered what was decided, so
    that nothing old is told when they are. A promotion moves the stable alias; one that is taken
    back moves it back, to a version that serves again.
    """
    verdicts, letters = dict(memory.verdicts), list(memory.letters)
    for view in reversed(rollouts):
        verdict = verdict_of(view)
        if verdict is None or view.created_at < memory.since or view.version not in numbered:
            continue
        before = verdicts.get(view.id)
        if before == verdict:
            continue
        verdicts[view.id] = verdict
        if not write:
            continue
        unsent = next((each for each in letters if each.rollout == view.id), None)
        letters = [each for each in letters if each.rollout != view.id]
        move = ("", "")
        # Not if the way back failed, or another version was forced meanwhile.
        back = view.stable == active and view.stable in numbered
        if not memory.aliased:
            pass  # stages are the registry's own business
        elif verdict == "promoted" and view.version == active:
            move = (memory.stable or "", view.version)
        elif before == "promoted" and not (unsent and unsent.move_to) and back:
            move = (view.version, view.stable or "")
        if move[1]:  # what was to be moved before is overtaken
            letters = [msgspec.structs.replace(e, move_from="", move_to="") for e in letters]
        letters.append(Letter(view.id, view.version, verdict, *move))
    kept = {each.id for each in rollouts[:_TOLD]} | {each.rollout for each in letters}
    verdicts = {id: verdict for id, verdict in verdicts.items() if id in kept}
    return msgspec.structs.replace(memory, verdicts=verdicts, letters=tuple(letters))


def told(memory: Memory, letter: Letter, stable: str | None) -> Memory:
    """After the registry was told; ``stable``: what its alias names now, if it was moved."""
    letters = tuple(each for each in memory.letters if each != letter)
    if stable is not None:
        memory = msgspec.structs.replace(memory, stable=stable)
    return msgspec.structs.replace(memory, letters=letters)


_WRONG: Final = re.compile(r"[^A-Za-z0-9._-]+")


def local_name(name: str) -> str:
    """The name here of a registered model: its own where that is allowed, else one made of it.

    >>> local_name("fraud"), local_name("fraud score (EU)")
    ('fraud', 'fraud-score-EU-a7bb14e7')
    """
    try:
        return check_name("model", name)
    except BadInput:
        plain = re.sub(r"\.\.+", ".", _WRONG.sub("-", name)).strip("-._")[:100].rstrip("-._")
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return f"{plain or 'model'}-{digest}"
