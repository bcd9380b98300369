"""What would have to be done so that a server is as ``hotswap.yaml`` wants it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from hotswap.core.blueprint import Blueprint, Gate, WantedModel, WantedVersion, key_of
from hotswap.core.naming import natural_key
from hotswap.core.rollout_views import RolloutView
from hotswap.core.uris import may_name
from hotswap.core.views import ModelView, VersionView

#: What changes a server.
CHANGES: Final = ("register", "switch", "rollout", "retry", "remove")
#: Roles in which a version is not removed.
_NEEDED: Final = {
    "stable": "it answers",
    "candidate": "its rollout runs",
    "previous": "a rollback leads to it",
}
_OVER: Final = ("Healthy", "Completed", "RolledBack", "Failed", "Degraded")


class Present(msgspec.Struct, frozen=True):
    """What the server has. ``rollouts``: of each model, newest first. ``contents``: the digest of
    what lies at a version's uri now, by model and version, where it could be looked at.
    """

    models: dict[str, ModelView] = {}
    rollouts: dict[str, tuple[RolloutView, ...]] = {}
    contents: dict[tuple[str, str], str] = {}


class Action(msgspec.Struct, frozen=True):
    """One thing to do, or to know. ``kind``: one of `CHANGES`; keep (nothing to do), follow (its
    rollout runs), leave (the file does not name it), or refused (``sentence`` says why, and what
    helps). ``body``: what is sent; ``rollout``: the id of the one that is meant.
    """

    model: str
    kind: str
    what: str
    sentence: str
    version: str = ""
    body: dict[str, Any] = {}
    rollout: str = ""

    @property
    def changes(self) -> bool:
        """Whether something is done."""
        return self.kind in CHANGES


def difference(
    blueprint: Blueprint, present: Present, *, retry: bool = False, prune: bool = False
) -> tuple[Action, ...]:
    """All of it, model by model, in the order in which it is to be done.

    ``retry``: a rollout that ended badly begins again. ``prune``: versions without weight that the
    file does not name are removed, in the models of which it lists versions.
    """
    actions: list[Action] = []
    for name, wanted in blueprint.models.items():
        view = present.models.get(name) or ModelView(name, None, None, 0, None, ())
        rollouts = present.rollouts.get(name, ())
        for version in sorted(wanted.versions, key=natural_key):
            content = present.contents.get((name, version), "")
            actions.append(_version(view, version, wanted.versions[version], content))
        actions += _stable(view, wanted, rollouts)
        actions += _rollout(view, wanted, rollouts, retry)
        actions += _others(view, wanted, prune)
    for name in sorted(present.models.keys() - blueprint.models.keys()):
        actions.append(Action(name, "leave", "model", "the file does not name it: left alone"))
    return tuple(actions)


def _version(view: ModelView, version: str, wanted: WantedVersion, content: str) -> Action:
    there = _find(view, version)

    def action(kind: str, sentence: str, **body: Any) -> Action:
        return Action(view.name, kind, version, sentence, version, body)

    if there is None:
        if wanted.uri is None:
            return action("refused", f"{version} is not registered: give its uri in the file")
        given = {
            name: value for name, value in msgspec.structs.asdict(wanted).items() if value
        }  # what is left out is the server's to choose
        return action("register", f"register it from {wanted.uri}", version=version, **given)
    registered = {there.digest, str(there.metadata.get("compiled_from", ""))}
    if content and content not in registered:
        return action(
            "refused",
            f"what lies at {wanted.uri} is not what was registered as {version} "
            f"({_short(content)}, registered {_short(there.digest)}): versions never change, so "
            "give it another id",
        )
    if not content and not _came_from(there, wanted):
        return action(
            "refused",
            f"{version} is registered from {there.uri}, not {wanted.uri}: versions never change, so "
            "give it another id, or leave out all that the file says of it",
        )
    runtime = wanted.compile or wanted.runtime  # converted, it runs in another than the original
    if runtime not in (None, there.runtime):
        return action(
            "refused",
            f"{version} is registered with the runtime {there.runtime}, not {runtime}: "
            "versions never change, so give it another id",
        )
    return action("keep", f"registered, {_short(there.digest)}{_kept(there, wanted)}")


def _came_from(there: VersionView, wanted: WantedVersion) -> bool:
    """Whether it may be what the file means, where only its uri can tell."""
    return not wanted.uri or not there.uri or may_name(wanted.uri, there.uri)


def _kept(there: VersionView, wanted: WantedVersion) -> str:
    """What the file says otherwise and cannot be changed any more."""
    differ = [
        name
        for name, same in (
            ("changelog", wanted.changelog in ("", there.changelog)),
            ("metadata", wanted.metadata.items() <= there.metadata.items()),
        )
        if not same
    ]
    return f"; its {' and '.join(differ)} stay as they were registered" if differ else ""


def _stable(
    view: ModelView, wanted: WantedModel, rollouts: Iterable[RolloutView]
) -> Iterable[Action]:
    version, active = wanted.stable, view.active
    if version is None:
        return
    target = wanted.rollout["version"] if wanted.rollout is not None else None
    running = _running(rollouts)
    kind, sentence = "switch", f"switch from {active} to it"
    if active == version:
        kind, sentence = "keep", "it is active"
    elif not _known(view, wanted, version):
        kind, sentence = "refused", _unknown(version)
    elif active is None:
        sentence = "give it all the traffic: none is active yet"
    elif active == target:
        kind = "keep"
        sentence = f"{active} is active, which the file rolls out"
    elif running is not None:
        kind = "refused"
        sentence = (
            f"{active} is active, and rollout {running.id} to {running.version} is "
            f"{running.phase}: wait for its end, or abort it"
        )
    elif target is not None and any(_promoted(each, active) for each in rollouts):
        kind = "refused"
        sentence = (
            f"a rollout made {active} active, and the file rolls out {target} beside {version}: "
            f"name {active} as stable, or go back first with 'hotswap switch {view.name} {version}'"
        )
    yield Action(view.name, kind, "stable", f"{version}: {sentence}", version)


def _rollout(
    view: ModelView, wanted: WantedModel, rollouts: tuple[RolloutView, ...], retry: bool
) -> Iterable[Action]:
    body = wanted.rollout
    if body is None:
        return
    version, key = body["version"], key_of(view.name, body)
    mine = [each for each in rollouts if each.idempotency_key.startswith(key)]
    latest = mine[0] if mine else None

    def action(kind: str, sentence: str, **body: Any) -> Action:
        id = latest.id if latest is not None else ""
        return Action(view.name, kind, "rollout", sentence, version, body, id)

    if latest is not None and latest.phase not in _OVER:
        said = f": {latest.message}" if latest.message else ""
        yield action("follow", f"{version}: rollout {latest.id} is {latest.phase}{said}")
    elif view.active == version:
        if latest is not None and latest.phase not in ("Healthy", "Degraded"):
            latest = None  # it did not make it active: a switch by hand did, and that counts
        yield action("keep", f"{version} is active: there is nothing to roll out")
    elif latest is not None and latest.phase == "Completed":
        yield action("keep", f"{version}: rollout {latest.id} is Completed: {latest.message}")
    elif latest is not None and not retry:
        yield action("refused", _ended(latest))
    elif not _known(view, wanted, version):
        yield action("refused", _unknown(version))
    elif (blocked := _blocked(view, wanted, rollouts)) is not None:
        yield action("refused", f"{version}: {blocked}")
    elif latest is not None and latest.phase in ("RolledBack", "Failed"):
        yield action("retry", f"try {version} again (rollout {latest.id}, {_gated(wanted.gate)})")
    else:
        key = key if latest is None else f"{key}.{len(mine)}"
        again = {"force": True} if latest is not None else {}
        how = body.get("strategy") or "canary"
        yield action(
            "rollout",
            f"roll {version} out ({how}, {_gated(wanted.gate)})",
            **body,
            **again,
            model=view.name,
            idempotency_key=key,
        )


def _ended(latest: RolloutView) -> str:
    version = latest.version
    if latest.phase == "Healthy":
        why = f"was promoted by rollout {latest.id}, and is active no more"
    else:
        why = f"ended {latest.phase} in rollout {latest.id}: {latest.message or latest.reason}"
    return f"{version} {why}; 'hotswap apply --retry' begins it again"


def _blocked(view: ModelView, wanted: WantedModel, rollouts: Iterable[RolloutView]) -> str | None:
    """Why no rollout can begin here."""
    assert wanted.rollout is not None
    running = _running(rollouts)
    if running is not None and wanted.rollout.get("on_running", "refuse") == "refuse":
        return (
            f"rollout {running.id} to {running.version} is {running.phase}: wait for its end, "
            "abort it, or give on_running: replace or queue"
        )
    if view.active is None and wanted.stable is None:
        return "no version is active that it could begin beside: name one as stable"
    return None


def _gated(gate: Gate | None) -> str:
    """What comes before a rollout, in words."""
    if gate is None:
        return "without a gate"
    asked = ["signature", "samples"]
    if gate.max_latency_ms is not None:
        asked.append(f"latency ≤ {gate.max_latency_ms:g} ms")
    if gate.max_memory_mb is not None:
        asked.append(f"memory ≤ {gate.max_memory_mb:g} MiB")
    if gate.replay is not None:
        asked.append("replay")
    return "after its gate: " + ", ".join(asked)


def _others(view: ModelView, wanted: WantedModel, prune: bool) -> Iterable[Action]:
    """The versions that the file does not name."""
    named = {*wanted.versions, wanted.stable, (wanted.rollout or {}).get("version")}
    for there in view.versions:
        if there.version in named:
            continue
        kind, sentence = "leave", "the file does not name it: left alone"
        if prune and wanted.versions:
            needed = _NEEDED.get(there.role) or ("it has traffic" if there.weight else "")
            kind = "leave" if needed else "remove"
            sentence = f"kept: {needed}" if needed else "remove it: the file does not name it"
        yield Action(view.name, kind, there.version, sentence, there.version)


def _find(view: ModelView, version: str) -> VersionView | None:
    return next((each for each in view.versions if each.version == version), None)


def _known(view: ModelView, wanted: WantedModel, version: str) -> bool:
    """Whether it is registered, or will be."""
    mine = wanted.versions.get(version)
    return (mine is not None and mine.uri is not None) or _find(view, version) is not None


def _unknown(version: str) -> str:
    return f"{version} is not registered, and the file has no uri for it under versions"


def _running(rollouts: Iterable[RolloutView]) -> RolloutView | None:
    return next((each for each in rollouts if each.phase not in _OVER), None)


def _promoted(rollout: RolloutView, active: str) -> bool:
    return rollout.phase == "Healthy" and rollout.version == active


def _short(digest: str) -> str:
    return digest[:19]


def changed(actions: Iterable[Action]) -> bool:
    """Whether any of them does something."""
    return any(each.changes for each in actions)


def by_model(actions: Iterable[Action]) -> Mapping[str, list[Action]]:
    """They, by model, in their order."""
    models: dict[str, list[Action]] = {}
    for each in actions:
        models.setdefault(each.model, []).append(each)
    return models
