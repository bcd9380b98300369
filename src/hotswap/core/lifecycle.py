"""One model's life as data: what is active, what was, where a rollback leads. Pure."""

from __future__ import annotations

import msgspec

from hotswap.core.signature import Signature
from hotswap.core.spec import VersionRecord


class Intent(msgspec.Struct, frozen=True):
    """A flip that was decided and is not yet known to be done; a restart rolls it forward.

    ``forced``: the version's own signature replaces the model's.
    """

    version: str
    operation: str
    kind: str
    revision: int
    forced: bool = False


class ModelDocument(msgspec.Struct, frozen=True):
    """What the store keeps of a model.

    ``index``: its word in the epoch memory. ``history``: versions that were active, the latest
    last, each once; ``signatures``: what each of them served. ``rolled_back``: those that were rolled back from. ``used``: every version
    id that was ever registered: none is used twice. ``operation``: which flipped it last.
    ``activate``: it was there at a first start, so its highest version is to be activated.
    ``removed``: only its name, its word and the ids that it used are kept.
    """

    name: str
    index: int
    signature: Signature | None = None
    signatures: dict[str, Signature] = {}
    active: str | None = None
    history: tuple[str, ...] = ()
    rolled_back: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    revision: int = 0
    intent: Intent | None = None
    operation: str = ""
    activate: bool = False
    removed: bool = False


class VersionDocument(msgspec.Struct, frozen=True):
    """What the store keeps of a version. ``runs_code``: why loading it needs trust, or None."""

    record: VersionRecord
    platform: str = ""
    runs_code: str | None = None


def rollback_target(model: ModelDocument, registered: frozenset[str]) -> str | None:
    """The latest version that was active before, still exists, and was not rolled back from.

    >>> model = ModelDocument("m", 1, active="v3", history=("v1", "v2", "v3"), rolled_back=("v2",))
    >>> rollback_target(model, frozenset({"v1", "v2", "v3"}))
    'v1'
    """
    for version in reversed(model.history):
        if version != model.active and version in registered and version not in model.rolled_back:
            return version
    return None


def caught_up(
    model: ModelDocument, stable: str, revision: int, signature: Signature | None
) -> ModelDocument:
    """The model as its table shows it, where the data plane went further than the store.

    A flip that was published is done, whether or not that was saved. And going back waits for
    no store: a table that is newer than all that was saved, and leads elsewhere, is a rollback.

    >>> model = ModelDocument("m", 1, active="v2", history=("v1", "v2"), revision=2)
    >>> caught_up(model, "v1", 3, None).rolled_back
    ('v2',)
    """
    intent = model.intent
    if intent is not None and revision >= intent.revision:
        if stable == intent.version:
            return flipped(model, intent, signature)
        model = msgspec.structs.replace(model, intent=None)
    if model.intent is None and stable != model.active and revision > model.revision:
        return flipped(model, Intent(stable, "", "rollback", revision), signature)
    return model


def decided(model: ModelDocument, intent: Intent) -> ModelDocument:
    """The model with a flip about to happen."""
    return msgspec.structs.replace(model, intent=intent)


def flipped(model: ModelDocument, intent: Intent, signature: Signature | None) -> ModelDocument:
    """The model after the flip. A rollback marks what it left; a switch to a version clears its mark."""
    rolled_back = set(model.rolled_back) - {intent.version}
    if intent.kind == "rollback" and model.active is not None and model.active != intent.version:
        rolled_back.add(model.active)
    history = (*(v for v in model.history if v != intent.version), intent.version)
    return msgspec.structs.replace(
        model,
        signature=signature,
        signatures=model.signatures
        if signature is None
        else {**model.signatures, intent.version: signature},
        active=intent.version,
        history=history,
        rolled_back=tuple(sorted(rolled_back)),
        revision=intent.revision,
        intent=None,
        operation=intent.operation,
        activate=False,
    )


def removed(model: ModelDocument) -> ModelDocument:
    """What is kept of a model that is removed, so that no id of it is ever used for other content."""
    return ModelDocument(
        model.name, model.index, used=model.used, revision=model.revision, removed=True
    )
