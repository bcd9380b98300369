"""The route table that a model should have, from what is registered and what is warm. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hotswap.core.lifecycle import ModelDocument, VersionDocument
from hotswap.core.routing import HostRef, RouteTable, Split, VersionEntry
from hotswap.core.signature import Signature
from hotswap.ipc.messages import HostState

Warm = Callable[[str], Sequence[HostState]]


def build_table(
    model: ModelDocument,
    versions: Mapping[str, VersionDocument],
    *,
    revision: int,
    stable: str | None,
    signature: Signature | None,
    warm: Warm,
    reasons: Mapping[str, str],
    loading: Callable[[str], bool],
    split: Split | None = None,
) -> RouteTable:
    """``warm(version)`` gives its hosts, ``reasons`` why versions could not be loaded."""
    entries = []
    for name, document in versions.items():
        hosts = warm(name)
        reason = reasons.get(name, "")
        state = "UNAVAILABLE"
        if hosts:
            state, reason = "READY", ""
        elif loading(name):
            state = "LOADING"
        settings = document.record.settings
        entries.append(
            VersionEntry(
                version=name,
                platform=document.platform,
                state=state,
                reason=reason,
                hosts=references(hosts),
                finite=settings.finite,
                pure=settings.pure,
                batch_rows=settings.batch_rows,
                digest=document.record.artifact.digest,
                runtime=document.record.artifact.runtime,
            )
        )
    return RouteTable(model.name, model.index, revision, stable, signature, tuple(entries), split)


def references(hosts: Sequence[HostState]) -> tuple[HostRef, ...]:
    """Where these hosts listen."""
    return tuple(HostRef(h.spec.host, f"h{h.spec.host}", h.spec.slot) for h in hosts)


def differs(new: RouteTable, old: RouteTable | None) -> bool:
    """Whether publishing ``new`` would change anything but the revision."""
    if old is None:
        return True
    return (new.stable, new.signature, new.versions, new.split) != (
        old.stable, old.signature, old.versions, old.split,
    )  # fmt: skip
