"""Which rollouts there are: by id, by the key they were started with, by model and by test."""

from __future__ import annotations

from hotswap.control.rollout_run import Run
from hotswap.core.phases import phase, reason
from hotswap.core.rollout import Rollout
from hotswap.errors import NotFound

#: Rollouts that are over and still kept in memory, to be shown.
_OVER = 500


class Book:
    """``runs``: all that are kept, by id. ``current``: model -> the run whose split its tables
    have. ``loaded``: whether it is known which rollouts there are; until then tables stay as they
    are.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.current: dict[str, Run] = {}
        self.loaded = False
        self._keys: dict[str, str] = {}
        self._gone: dict[tuple[str, str, str, str], int] = {}

    def add(self, run: Run) -> None:
        """From here on it is one of them."""
        self.runs[run.rollout.id] = run
        if run.rollout.idempotency_key:
            self._keys[run.rollout.idempotency_key] = run.rollout.id

    def find(self, id: str) -> Run:
        """Raises `NotFound`."""
        run = self.runs.get(id)
        if run is not None:
            return run
        raise NotFound(f"there is no rollout {id!r}")

    def started_with(self, key: str) -> Run | None:
        """The one that was started with that idempotency key; None for the empty one."""
        id = self._keys.get(key)
        return self.find(id) if id is not None else None

    def tested(self, test: str) -> Run | None:
        """The one whose present attempt is that test, ``ID.ATTEMPT``."""
        run = self.runs.get(test.rpartition(".")[0])
        return run if run is not None and run.rollout.test == test else None

    def forget_old(self) -> None:
        """Of those that are over only the latest are kept; the others are only counted."""
        over = [run for run in self.runs.values() if run.closed and not run.dirty]
        if len(over) <= _OVER:
            return
        for run in sorted(over, key=lambda each: each.rollout.created_at)[:-_OVER]:
            key = _ended(run.rollout)
            self._gone[key] = self._gone.get(key, 0) + 1
            del self.runs[run.rollout.id]
            self._keys.pop(run.rollout.idempotency_key, None)

    def ends(self) -> dict[tuple[str, str, str, str], int]:
        """Rollouts that are over, by (model, strategy, phase, reason)."""
        counts = dict(self._gone)
        for run in self.runs.values():
            if run.rollout.final:
                key = _ended(run.rollout)
                counts[key] = counts.get(key, 0) + 1
        return counts


def _ended(rollout: Rollout) -> tuple[str, str, str, str]:
    status, spec = rollout.status, rollout.spec
    return spec.model, spec.strategy, phase(status), reason(status)
