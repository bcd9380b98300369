"""What operators are shown of a model, from what is registered, warm and failed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hotswap.core.lifecycle import ModelDocument, VersionDocument, rollback_target
from hotswap.core.routing import WHOLE, RouteTable
from hotswap.core.views import ModelView, VersionView
from hotswap.ipc.messages import HostState


def model_view(
    model: ModelDocument,
    versions: Mapping[str, VersionDocument],
    *,
    hosts: Sequence[HostState],
    table: RouteTable | None,
    memory: Mapping[str, int],
    failures: Mapping[str, str],
    refused: Mapping[str, str | None],
    loading: Callable[[str], bool],
    problems: Sequence[str],
) -> ModelView:
    """One model with all its versions."""
    target = rollback_target(model, frozenset(versions))
    stable = table.stable if table is not None else None
    split = table.split if table is not None else None
    views = []
    for name, document in versions.items():
        mine = [h for h in hosts if h.spec.version == name]
        views.append(
            _version_view(
                document,
                mine,
                memory,
                active=stable == name,
                target=target == name,
                candidate=split is not None and split.candidate == name,
                weight=_weight(table, name),
                failure=failures.get(name, ""),
                refusal=refused.get(name) or "",
                loading=loading(name),
            )
        )
    return ModelView(
        name=model.name,
        active=model.active,
        previous=target,
        revision=table.revision if table is not None else model.revision,
        signature=model.signature,
        versions=tuple(views),
        warnings=tuple(problems),
    )


def _weight(table: RouteTable | None, version: str) -> float:
    """Percent of the unpinned requests that the version answers."""
    if table is None:
        return 0.0
    split = table.split
    if split is None:
        return 100.0 if version == table.stable else 0.0
    if version == split.candidate:
        return 100.0 * split.weight / WHOLE
    return 100.0 * (WHOLE - split.weight) / WHOLE if version == split.baseline else 0.0


def _version_view(
    document: VersionDocument,
    hosts: Sequence[HostState],
    memory: Mapping[str, int],
    *,
    active: bool,
    target: bool,
    candidate: bool,
    weight: float,
    failure: str,
    refusal: str,
    loading: bool,
) -> VersionView:
    record = document.record
    ready = [h for h in hosts if h.state == "ready"]
    report = next((h.report for h in hosts if h.report is not None), None)
    restarting = next((h for h in hosts if h.state == "restarting"), None)
    state, reason = "REGISTERED", ""
    if ready:
        state = "READY"
        reason = "; ".join(report.warnings) if report is not None else ""
    elif restarting is not None:
        state, reason = "LOADING", f"its process is being restarted: {restarting.error}"
    elif loading:
        state = "LOADING"
    elif failure:
        state, reason = "UNAVAILABLE", failure
    elif refusal:
        state, reason = "UNAVAILABLE", refusal
    role = ""
    if active:
        role = "stable"
    elif candidate:
        role = "candidate"
    elif target:
        role = "previous"
    elif hosts:
        role = "resident"
    return VersionView(
        version=record.version,
        digest=record.artifact.digest,
        runtime=record.artifact.runtime,
        state=state,
        role=role,
        weight=weight,
        instances=len(ready),
        memory_bytes=sum(
            memory.get(h.spec.host, h.report.memory_bytes if h.report is not None else 0)
            for h in ready
        ),
        load_seconds=report.load_seconds + report.warm_seconds if report is not None else None,
        changelog=record.changelog,
        metadata=record.metadata,
        reason=reason,
        unvalidated=report is not None and report.signature.unvalidated,
        uri=record.uri,
        created_at=record.created_at,
        created_by=record.created_by,
        steady_ms=report.steady_seconds * 1e3 if report and report.steady_seconds else None,
        samples=record.settings.samples is not None,
    )
