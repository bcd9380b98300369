"""What is so now, for a rollout: its table, its hosts, its readings, the store."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hotswap.control.catalogue import Catalogue
from hotswap.control.exposing import exposure_of, wanted
from hotswap.control.node import Node
from hotswap.control.rollout_book import Book
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_saving import Saving
from hotswap.control.warming import serves
from hotswap.core.lifecycle import rollback_target
from hotswap.core.rollout import Observation, Rollout
from hotswap.ports import Clock

Served = Callable[[str, str], tuple[int, int]]


class Observer:
    """``served`` gives (failures, requests) of a version as stable so far."""

    def __init__(
        self,
        node: Node,
        catalogue: Catalogue,
        saving: Saving,
        clock: Clock,
        book: Book,
        served: Served,
    ) -> None:
        self._node = node
        self._catalogue = catalogue
        self._saving = saving
        self._clock = clock
        self._book = book
        self._served = served

    def observe(self, run: Run) -> Observation:
        """What is so now, for this rollout."""
        rollout = run.rollout
        name, version = rollout.spec.model, rollout.spec.version
        document = self._catalogue.models.get(name)
        table = self._node.tables.get(name)
        status = rollout.status
        ready, lacking = self.capacity(rollout)
        target = None
        if document is not None:
            target = rollback_target(document, self._catalogue.registered(name))
        served = self._served(name, version) if status.state == "watching" else (0, 0)
        now = self._clock.monotonic()
        readings = {
            name: msgspec.structs.replace(reading, age=now - run.read_then[name])
            for name, reading in run.readings.items()
        }
        counted = sum(s.candidate.requests + s.stable.requests for s in rollout.evidence.stages)
        return Observation(
            exposed=exposure_of(table, rollout),
            active=table.stable if table is not None else None,
            ready=ready,
            lacking=lacking,
            load_error=run.load_error,
            restarts=max(0, self.restarts(name, version) - run.document.restarts),
            breaker=run.breaker,
            outage=self._saving.outage,
            blocked=status.state == "queued" and self._book.current.get(name) not in (None, run),
            served=served,
            target=target,
            rate=counted / max(1.0, status.elapsed),
            readings=readings,
        )

    def restarts(self, model: str, version: str) -> int:
        """How often the processes of a version that are there died."""
        return sum(state.restarts for state in self._node.warm(model, version))

    def capacity(self, rollout: Rollout) -> tuple[bool, str]:
        """Whether there are warm hosts for what is wanted, and what is missing."""
        name, version = rollout.spec.model, rollout.spec.version
        hosts, twins = wanted(rollout)
        document = self._catalogue.models.get(name)
        public = document.signature if document is not None else None
        # One that was loaded for itself may be warm and serve another signature.
        there = [
            state
            for state in self._node.warm(name, version)
            if state.state == "ready" and (public is None or serves(state, public))
        ]
        if len(there) < hosts:
            return False, f"{len(there)} of {hosts} hosts of {version} are warm"
        if twins and rollout.stable is not None:
            warm = self._node.warm(name, rollout.stable, twin=True)
            ready = [s for s in warm if s.state == "ready"]
            if len(ready) < twins:
                return False, f"{len(ready)} of {twins} twin hosts of {rollout.stable} are warm"
        return True, ""
