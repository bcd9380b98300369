"""Drift, watched: a job looks at each model's records every few minutes; what is new is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog

from hotswap.control.hidden import hidden_inputs
from hotswap.control.recorded import Recorded
from hotswap.core.drift_views import ColumnDrift, DriftSettings, DriftView
from hotswap.core.signature import Signature
from hotswap.core.stats import ModelStats
from hotswap.errors import HotswapError, MetricsUnavailable, Unavailable
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")

#: Records of requests that were being answered are waited for so long, at most.
_ANSWERING: Final = 30.0
#: Records are written so long after the answer, at most.
_WRITTEN: Final = 2.0
#: So many looks more are made after the last request: what it recorded is seen then.
_LOOKS: Final = 3
#: As many columns are told by name.
_TOLD: Final = 5
#: Nothing counted for so long says nothing of a rollout's inputs: it holds.
_LEAST_AGE: Final = 600.0

Tell = Callable[..., None]


class _Seen:
    """What is known of one model. ``requests``: how many it had had then."""

    def __init__(self) -> None:
        self.view: DriftView | None = None
        self.requests = -1
        self.left = _LOOKS
        self.problem = ""


class DriftWatch:
    """``models`` gives each model's stable version, ``signature`` one model's; ``tell`` takes events.

    As a metric source it reads, for a model, how far its inputs have drifted.
    """

    def __init__(
        self,
        recorded: Recorded,
        settings: DriftSettings,
        models: Callable[[], Mapping[str, str | None]],
        stats: Callable[[], list[ModelStats]],
        clock: Clock,
        tell: Tell,
        signature: Callable[[str], Signature | None] = lambda _: None,
    ) -> None:
        self._recorded = recorded
        self._settings = settings
        self._models = models
        self._stats = stats
        self._clock = clock
        self._tell = tell
        self._signature = signature
        self._seen: dict[str, _Seen] = {}
        self._lock = asyncio.Lock()

    # --- looking

    async def run(self) -> None:
        """For ever: look at every model that was asked something."""
        while True:
            began = self._clock.monotonic()
            up = bool(self._recorded.watermark())  # else the recorder has not come up yet
            if up:
                await self.look_around()
            behind = any(s.view is not None and s.view.behind for s in self._seen.values())
            spent = self._clock.monotonic() - began
            pause = self._settings.seconds - spent if up and not behind else 0.5
            await asyncio.sleep(max(0.1, pause))

    async def look_around(self) -> None:
        """Once at every model that was asked something since, or is new here."""
        models = self._models()
        for gone in set(self._seen) - set(models):
            del self._seen[gone]
        requests = dict.fromkeys(models, 0)
        for each in self._stats():
            if each.model in requests:
                requests[each.model] += each.success + sum(each.errors.values())
        for model in sorted(models):
            seen = self._seen.setdefault(model, _Seen())
            if requests[model] != seen.requests:
                seen.left = _LOOKS
            seen.requests = requests[model]
            if seen.left > 0 or (seen.view is not None and seen.view.behind):
                try:
                    await self.look(model)
                except HotswapError as error:
                    if str(error) != seen.problem:
                        log.warning("drift cannot be watched", model=model, reason=str(error))
                    seen.problem = str(error)
                else:
                    seen.left -= 1
            elif seen.view is not None and not seen.problem:  # nobody asked anything
                seen.view = msgspec.structs.replace(seen.view, looked_at=self._clock.wall())

    async def look(self, model: str, *, reset: bool = False) -> DriftView:
        """Count what is new of a model; ``reset``: freeze new references, from now on."""
        seen = self._seen.setdefault(model, _Seen())
        # One at a time: two must not count the same records.
        async with self._lock:
            known = self._recorded.watermark()
            if not known:
                raise Unavailable("the recorder has written nothing yet; try again soon")
            settled = known - min(_ANSWERING, self._settings.seconds) - _WRITTEN
            request = {
                "kind": "drift",
                "root": str(self._recorded.root),
                "location": self._recorded.location,
                "model": model,
                "stable": self._models().get(model),
                "until": settled,
                "settings": self._settings,
                "reset": reset,
                "hidden": hidden_inputs(self._recorded, self._signature(model)),
            }
            runner = self._recorded.jobs if reset else self._recorded.ticks
            found = await runner.run("watching for drift", request, DriftView)
            view = msgspec.structs.replace(found, looked_at=self._clock.wall())
            before, seen.view, seen.problem = seen.view, view, ""
            self._say(before, view)
        return view

    def _say(self, before: DriftView | None, view: DriftView) -> None:
        if view.problems and (before is None or view.problems != before.problems):
            log.warning("records cannot all be watched", model=view.model, problems=view.problems)
        fresh = [each for each in view.columns if each.column in view.fresh]
        if fresh:
            log.warning(
                "drift", model=view.model, columns=[each.column for each in fresh],
                causes=[each.cause for each in fresh],
            )  # fmt: skip
            self._told(view.model, "drifted from the reference", fresh, "warning")
        still = {each.column for each in view.alarmed()}
        was = () if before is None else before.alarmed()
        over = [each for each in was if each.column not in still]
        watched = {each.column for each in view.columns}
        ended = [each for each in over if each.column in watched]
        if ended:
            log.info("drift is over", model=view.model, columns=[each.column for each in ended])
            self._told(view.model, "is as in the reference again", ended, "info")
        left = [
            msgspec.structs.replace(each, cause="")  # it may name values that are hidden now
            for each in over
            if each.column not in watched
        ]
        if left:
            log.info("drift is not watched", model=view.model, columns=[e.column for e in left])
            self._told(view.model, "is not held against that reference any more", left, "info")

    def _told(self, model: str, what: str, columns: list[ColumnDrift], severity: str) -> None:
        names = [each.column for each in columns]
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        cause = f" ({columns[0].cause})" if severity == "warning" and columns[0].cause else ""
        data: dict[str, Any] = {
            "severity": severity,
            "columns": names,
            "distances": [each.distance for each in columns],
            "causes": [each.cause for each in columns],
        }
        self._tell("drift", model, f"{', '.join(names[:_TOLD])}{more} {what}{cause}", **data)

    # --- what is known

    def view(self, model: str) -> DriftView:
        """What was seen last."""
        seen = self._seen.get(model)
        if seen is None or seen.view is None:
            why = seen.problem if seen is not None and seen.problem else "not looked at yet"
            return DriftView(model, "waiting", why, self._settings.tolerance)
        view = seen.view
        if seen.problem:
            return msgspec.structs.replace(view, problems=(*view.problems, seen.problem))
        return view

    def views(self) -> list[DriftView]:
        """Of all models that were looked at."""
        return [self.view(name) for name, seen in self._seen.items() if seen.view is not None]

    async def read(self, query: str) -> float:
        """How far the inputs of the model ``query`` have drifted: the largest distance of a column
        that is alarmed, 0 if none is. Raises `MetricsUnavailable` where that is not known.
        """
        view = self.view(query)
        inputs = next((each for each in view.references if each.side == "input"), None)
        if inputs is None or inputs.state != "watching":
            raise MetricsUnavailable(
                f"there is no drift reference of the inputs of {query!r} yet: {view.message}"
            )
        now, most = self._clock.wall(), max(_LEAST_AGE, 3.0 * self._settings.seconds)
        if now - (view.looked_at or 0.0) > most or now - (view.latest or 0.0) > most:
            raise MetricsUnavailable(
                f"no records of {query!r} were watched for drift in the last {most:.0f} s"
            )
        return max((_how_far(each) for each in view.alarmed("input")), default=0.0)

    async def close(self) -> None:
        """Nothing is held."""


def _how_far(column: ColumnDrift) -> float:
    missing = (column.missing or 0.0) - column.missing_reference
    return max(column.distance or 0.0, missing)


__all__ = ["DriftWatch"]
