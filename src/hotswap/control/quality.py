"""The report of a model's quality, asked of the process that works on records."""

from __future__ import annotations

from hotswap.control.hidden import hidden_inputs
from hotswap.control.recorded import Recorded
from hotswap.core.quality_views import Quality
from hotswap.core.signature import Signature
from hotswap.errors import BadInput, Conflict


async def report(
    recorded: Recorded | None,
    model: str,
    stable: str | None,
    *,
    since: float | None = None,
    until: float | None = None,
    versions: tuple[str, str] | None = None,
    by: str | None = None,
    now: float | None = None,
    signature: Signature | None = None,
) -> Quality:
    """See `hotswap.control.interface.Control.quality`. ``stable``: the model's active version;
    ``now``: Unix time, by which labels are due; ``signature``: the model's, if it has one.
    """
    if since is not None and until is not None and until <= since:
        raise BadInput("that time ends before it begins: there is nothing in between")
    if recorded is None:
        raise Conflict(
            "nothing is recorded here, so there is nothing to report: start the server with "
            "--records on"
        )
    request = {
        "kind": "report",
        "root": str(recorded.root),
        "location": recorded.location,
        "model": model,
        "since": None if since is None else max(0.0, since),
        "until": until,
        "versions": versions,
        "stable": stable,
        "by": by,
        # Also those that were recorded before they were to be hidden.
        "hidden": hidden_inputs(recorded, signature),
        "mature_before": None if now is None else now - recorded.maturity,
    }
    return await recorded.jobs.run(f"the report of {model}", request, Quality)


__all__ = ["report"]
