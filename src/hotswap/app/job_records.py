"""Jobs over records: what would block control, done in the process of `hotswap.app.job`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hotswap.core.drift_views import DriftSettings, DriftView
from hotswap.core.label_evidence import Cohort, Labels
from hotswap.core.quality_views import Quality
from hotswap.errors import Unavailable


class CohortRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="cohort"):
    """Count the labels of one stretch of a rollout's requests: see `hotswap.records.cohorts.count`.

    ``began``: Unix time at which the rollout did.
    """

    id: int
    root: str
    location: str | None
    model: str
    cohort: Cohort
    labels: Labels
    began: float


def count_cohort(request: CohortRequest) -> Labels:
    """The evidence with that stretch."""
    import duckdb

    from hotswap.records import cohorts, dataset, labelled_rows

    cohort = request.cohort
    # Ids that several requests carry are looked for as far back as a label may be meant for.
    since = cohort.since - cohort.maturity - labelled_rows.EARLY
    # Of keyed traffic each key's first request of the whole test counts.
    if set(cohort.weights) - set(cohort.paired) or "reward" in cohort.keys:
        since = min(since, request.began)
    for verify in (False, True):
        with dataset.open(
            Path(request.root), request.model, since=since, location=request.location, verify=verify
        ) as opened:
            try:
                labels = cohorts.count(opened, cohort, request.labels)
                return msgspec.structs.replace(labels, problem=_gone(request))
            except duckdb.Error:  # a file is damaged inside: without it
                if verify:
                    raise
    raise AssertionError


def _gone(request: CohortRequest) -> str:
    """Why labels of the stretch could not all be counted, "" if they could."""
    from hotswap.records.gone import gone_until

    until = gone_until(Path(request.root), request.model)
    if until < request.cohort.since:
        return ""
    told = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"records up to {told} UTC had to go before labels were due: keep more (--records-mb), "
        "record less (--records-share, --records-inputs), or give labels less time"
    )


class DriftRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="drift"):
    """Count a model's records against its drift reference: see `hotswap.records.drift.look`."""

    id: int
    root: str
    location: str | None
    model: str
    stable: str | None
    until: float
    settings: DriftSettings
    reset: bool = False
    hidden: tuple[str, ...] = ()


def look_for_drift(request: DriftRequest) -> DriftView:
    """What is so. Raises `Unavailable` if it cannot be kept."""
    from hotswap.records import drift

    try:
        return drift.look(
            Path(request.root),
            request.model,
            request.stable,
            request.settings,
            until=request.until,
            location=request.location,
            reset=request.reset,
            hidden=request.hidden,
        )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise Unavailable(f"what is known of drift cannot be read or kept: {reason}") from error


class ReportRequest(msgspec.Struct, frozen=True, tag_field="kind", tag="report"):
    """Measure how good a model's versions were: see `hotswap.records.quality.measure`."""

    id: int
    root: str
    location: str | None
    model: str
    since: float | None
    until: float | None
    versions: tuple[str, str] | None
    stable: str | None
    by: str | None
    hidden: tuple[str, ...] = ()
    mature_before: float | None = None


def measure_quality(request: ReportRequest) -> Quality:
    """The report of what is recorded between two times."""
    import duckdb

    from hotswap.records import quality, quality_window

    asked = Path(request.root), request.model, request.since, request.until
    whole = quality_window.is_all(*asked, location=request.location)
    for verify in (False, True):
        with quality_window.open_window(*asked, location=request.location, verify=verify) as opened:
            try:
                return quality.measure(
                    opened, request.model, versions=request.versions, stable=request.stable,
                    by=request.by, hidden=request.hidden, mature_before=request.mature_before,
                    whole=whole,
                )  # fmt: skip
            except duckdb.Error:  # a file is damaged inside: without it
                if verify:
                    raise
    raise AssertionError


__all__ = [
    "CohortRequest", "DriftRequest", "ReportRequest", "count_cohort", "look_for_drift",
    "measure_quality",
]  # fmt: skip
