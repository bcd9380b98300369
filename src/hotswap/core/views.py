"""What operators are shown: models, versions, operations. Values only; JSON by `msgspec`."""

from __future__ import annotations

from typing import Any

import msgspec

from hotswap.core.signature import Signature


class VersionView(msgspec.Struct, frozen=True):
    """One version. ``state``: READY, LOADING, UNAVAILABLE (failed, or not trusted) or REGISTERED.

    ``reason``: why it is UNAVAILABLE or being restarted; what is remarkable if it is READY.
    ``role``: stable, candidate (of a running rollout), previous (the rollback target, warm or
    not), resident, or "". ``weight``:
    percent. ``instances``: warm hosts; ``memory_bytes``: their own (unshared) memory;
    ``load_seconds``: how long the last load took, warm-up included, None if it is not loaded.
    ``steady_ms``: what one row took when it was loaded, once it was warm, None if it was not run;
    ``samples``: it brings sample rows of its own, which it must answer to be loaded.
    ``unvalidated``: it could not be tried out. Times are Unix times, for display.
    """

    version: str
    digest: str
    runtime: str
    state: str
    role: str
    weight: float
    instances: int
    memory_bytes: int
    load_seconds: float | None
    changelog: str
    metadata: dict[str, Any]
    reason: str
    unvalidated: bool
    uri: str
    created_at: float
    created_by: str
    steady_ms: float | None = None
    samples: bool = False


class ModelView(msgspec.Struct, frozen=True):
    """One model with its versions in natural order.

    ``active``: which answers requests that name no version. ``previous``: where a rollback leads.
    ``revision``: of the route table in force. ``warnings``: what could not be registered, and why.
    """

    name: str
    active: str | None
    previous: str | None
    revision: int
    signature: Signature | None
    versions: tuple[VersionView, ...]
    warnings: tuple[str, ...] = ()


class OperationView(msgspec.Struct, frozen=True):
    """Something that was asked of one version. ``kind``: switch, rollback, load, unload, replay.

    ``state``: preparing, then flipping (switches and rollbacks), then done, failed, superseded
    (a newer switch of the model began) or aborted; ``reason`` in a sentence. The times in
    milliseconds are as in `SwitchView`, None until they are known; ``created_at`` and
    ``finished_at`` are Unix times, for display.
    """

    id: str
    kind: str
    model: str
    version: str
    state: str
    reason: str = ""
    from_version: str | None = None
    revision: int | None = None
    prepare_ms: float | None = None
    flip_ms: float | None = None
    publish_ms: float | None = None
    created_at: float = 0.0
    finished_at: float | None = None


class SwitchView(msgspec.Struct, frozen=True):
    """The answer to a switch or a rollback. ``from`` and ``to`` are versions; times in milliseconds.

    ``prepare_ms``: until the version was warm. ``flip_ms``: the one store before which every
    request is answered by the one version and after which every request by the other.
    ``publish_ms``: that store with all that leads to it, workers' acknowledgements included.
    """

    operation_id: str
    from_: str | None = msgspec.field(name="from")
    to: str
    revision: int
    prepare_ms: float
    flip_ms: float
    publish_ms: float = 0.0
