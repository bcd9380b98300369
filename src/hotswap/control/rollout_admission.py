"""Rollouts as operators ask for them: what would come of one, and its start."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from hotswap.control.catalogue import Catalogue
from hotswap.control.rollout_book import Book
from hotswap.control.rollout_ending import Ending
from hotswap.control.rollout_feeds import Feeds
from hotswap.control.rollout_labels import keys_of
from hotswap.control.rollout_news import News
from hotswap.control.rollout_observed import Observer
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_saving import Saving
from hotswap.control.rollout_shown import Shown
from hotswap.control.rollout_start import begun
from hotswap.control.rollout_store import Document
from hotswap.core.durations import spoken
from hotswap.core.journal import Record
from hotswap.core.metric_names import DRIFT
from hotswap.core.phases import phase
from hotswap.core.preflight import preflight
from hotswap.core.rollout_views import PlanView, RolloutView
from hotswap.core.strategy import RolloutDefaults, RolloutSpec, parse
from hotswap.errors import BadInput, Conflict, StoreError
from hotswap.ports import Clock

_DAY: Final = 86400.0


class Admission:
    """One start at a time. ``apart`` says whether candidates run on hosts of another kind than
    stable versions.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        feeds: Feeds,
        saving: Saving,
        clock: Clock,
        book: Book,
        observer: Observer,
        ending: Ending,
        shown: Shown,
        news: News,
        defaults: RolloutDefaults,
        apart: Callable[[], bool],
        *,
        kept_days: float = 0.0,
    ) -> None:
        self._kept_days = kept_days
        self._catalogue = catalogue
        self._feeds = feeds
        self._saving = saving
        self._clock = clock
        self._book = book
        self._observer = observer
        self._ending = ending
        self._shown = shown
        self._news = news
        self._defaults = defaults
        self._apart = apart
        self._starting = asyncio.Lock()

    async def start(self, body: Mapping[str, Any], *, who: str = "") -> RolloutView:
        """See `Control.start_rollout`."""
        spec = parse(body, self._defaults)
        key = body.get("idempotency_key") or ""
        if not isinstance(key, str) or len(key) > 256:
            raise BadInput("idempotency_key must be a string of at most 256 characters")
        if self._book.started_with(key) is None:
            self._check(spec)
            await self._feeds.try_queries(spec)
        # Shielded: a client that goes away does not undo what it asked for.
        return await asyncio.shield(asyncio.ensure_future(self._start(spec, key, who)))

    async def _start(self, spec: RolloutSpec, key: str, who: str) -> RolloutView:
        async with self._starting:
            earlier = self._book.started_with(key)
            if earlier is not None:
                return self._repeated(earlier, spec)
            stable = self._check(spec)
            current = self._book.current.get(spec.model)
            if current is not None and current.status.state == "watching":
                await self._ending.end_watch(current)
                current = self._book.current.get(spec.model)
            if current is not None and current.rollout.final and current.closed:
                current = None
            if current is not None and spec.on_running == "refuse":
                raise Conflict(_beside(current))
            queued = current is not None
            rollout = begun(
                secrets.token_hex(5), spec, stable, self._catalogue.instances(spec.model, stable),
                self._feeds.fresh(), self._begun_at(), key, queued=queued,
            )  # fmt: skip
            if self._apart():
                rollout = msgspec.structs.replace(rollout, apart=True)
            run = Run(Document(rollout, restarts=self._observer.restarts(spec.model, spec.version)))
            # Not among the others before it is saved: nothing of it may happen until then.
            record = Record(rollout, rollout.status)
            if not await self._saving.record(run, rollout, "started", record, must=True, who=who):
                raise StoreError(f"the rollout was not started: {self._saving.outage}")
            self._book.add(run)
            if not queued:
                self._book.current[spec.model] = run
            self._news.tell(run)
            if queued and spec.on_running == "replace":
                await self._ending.replace(run)
            self._news.hurry()
        return self._shown.view(run)

    def _begun_at(self) -> float:
        """Unix time, and after all that began before: it is also their order."""
        last = max((run.rollout.created_at for run in self._book.runs.values()), default=0.0)
        return max(self._clock.wall(), last + 1e-3)

    def _repeated(self, run: Run, spec: RolloutSpec) -> RolloutView:
        if run.rollout.spec != spec:
            raise Conflict(f"the idempotency key was used for another rollout, {run.rollout.id}")
        return self._shown.view(run)

    async def plan(self, body: Mapping[str, Any]) -> PlanView:
        """See `Control.plan_rollout`."""
        spec = parse(body, self._defaults)
        stable = self._check(spec)
        await self._feeds.try_queries(spec)
        traffic = self._feeds.traffic(spec.model, stable)
        return preflight(spec, dict(body), stable, traffic.per_second, traffic.error_rate)

    def _check(self, spec: RolloutSpec) -> str:
        """The version that it would begin beside. Raises what an operator must know."""
        document = self._catalogue.model(spec.model)
        self._catalogue.version(spec.model, spec.version)
        if document.active is None:
            raise Conflict(
                f"model {spec.model!r} has no active version to roll out from: "
                f"'hotswap switch {spec.model} {spec.version}' activates one"
            )
        if document.active == spec.version:
            raise Conflict(f"version {spec.version!r} of model {spec.model!r} is active already")
        if spec.version in document.rolled_back and not spec.force:
            raise Conflict(
                f"version {spec.version!r} of model {spec.model!r} was rolled back from: give "
                "'force' to roll it out all the same"
            )
        if spec.key_input is not None and document.signature is not None:
            names = [each.name for each in document.signature.inputs]
            if spec.key_input not in names:
                raise BadInput(
                    f"key_input {spec.key_input!r} is no input of model {spec.model!r}: "
                    f"it has {', '.join(names[:20])}"
                )
        missing = self._feeds.missing(spec)
        if DRIFT in missing:
            raise BadInput(
                "the guardrail 'input_drift' needs records that are watched for drift, and this "
                "server has none: start it with --records on and --drift-seconds above 0"
            )
        if missing:
            raise BadInput(
                f"a guardrail asks {missing.pop()}, and none is configured: start the server with "
                "--prometheus-url"
            )
        if keys_of(spec):
            self._check_records(spec)
        return document.active

    def _check_records(self, spec: RolloutSpec) -> None:
        if not self._kept_days:
            raise BadInput(
                "labels decide a metric of this rollout, and no records are kept here that they "
                "could be joined with: serve with --records on"
            )
        wait = spec.label_maturity_seconds
        if wait >= self._kept_days * _DAY:
            raise BadInput(
                f"labels may take {spoken(wait)} (label_maturity_seconds), and records are kept for "
                f"{spoken(self._kept_days * _DAY)} here: none would be left to join them with. Give "
                "them less time, or serve with a larger --records-days"
            )


def _beside(current: Run) -> str:
    spec = current.rollout.spec
    return (
        f"rollout {current.rollout.id} of model {spec.model!r} to {spec.version!r} is "
        f"{phase(current.status)}: abort it, or give on_running 'replace' or 'queue'"
    )
