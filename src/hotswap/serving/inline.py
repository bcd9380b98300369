"""The data plane inside a user's own process: routes, leases and counters, without sockets.

A flip is one assignment of a reference, `InlinePlane.publish`: a lease taken after it returned is
of the new table, one taken before keeps the old table, and so its versions, until it is released.
Leases may be taken on any number of event loops and threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from hotswap.core.routing import RouteTable, VersionEntry
from hotswap.core.stats import ModelStats
from hotswap.errors import NotFound, Unavailable
from hotswap.serving.inline_counters import Counters
from hotswap.serving.inline_leases import DividedLease, InlineArm, InlineLease, InlineRoute
from hotswap.serving.inline_links import Runner
from hotswap.serving.inline_runner import InlineRunner
from hotswap.serving.inline_split import SplitLoop, SplitRoute

_PUBLISH_SECONDS = 10.0
_now = time.monotonic
_now_ns = time.monotonic_ns


class InlinePlane:
    """`hotswap.ports.DataPlane` over models in this process.

    ``on_drained(index, revision)``: no lease holds a revision of this model below that one.
    ``on_wanted(model, version)``: a version that is not loaded was asked for. Both are called on
    whatever thread it happens. ``wall_ms`` is Unix time in milliseconds, for display.
    ``refusal`` is why no request is taken now; "" while they are. ``split`` divides requests
    while a rollout runs; it is None before the start.
    """

    def __init__(
        self,
        *,
        on_drained: Callable[[int, int], None],
        on_wanted: Callable[[str, str], None],
        wall_ms: Callable[[], int],
    ) -> None:
        self.refusal = "it is not started yet"
        self.started = False
        self.wall_ms = wall_ms
        self.runners: dict[str, InlineRunner] = {}
        self.remote: dict[str, Runner] = {}
        self.split: SplitLoop | None = None
        self._on_drained = on_drained
        self._on_wanted = on_wanted
        self._routes: dict[str, InlineRoute] = {}
        self._old: list[InlineRoute] = []
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._leases = 0
        self._counters: dict[tuple[str, str, str], Counters] = {}
        self._asked: dict[tuple[str, str], float] = {}
        #: index -> the test whose candidate a breaker took out
        self._tripped: dict[int, str] = {}

    # --- tables

    def publish(self, table: RouteTable) -> float:
        """Route by this table from now on; how long the flip took, in milliseconds."""
        loaded: dict[str, Runner] = {**self.runners, **self.remote}
        arms = {
            entry.version: InlineArm(
                entry, [loaded[ref.host] for ref in entry.hosts if ref.host in loaded]
            )
            for entry in table.versions
        }
        route = InlineRoute(table, arms)
        division = self._divide(route)
        began = _now_ns()
        with self._lock:
            # A flip that was under way when its candidate was taken out must not put it back.
            if table.split is None or self._tripped.get(table.index) != table.split.test:
                self._tripped.pop(table.index, None)
                route.division = division
            old = self._routes.get(table.model)
            self._routes[table.model] = route
            if old is not None and old.leases:
                self._old.append(old)
            flip_ms = (_now_ns() - began) / 1e6
            drained = self._drained_to(table.index, table.revision)
        self._on_drained(table.index, drained)
        return flip_ms

    def _divide(self, route: InlineRoute) -> SplitRoute | None:
        """How this table's unpinned requests will be divided; None if they are not."""
        table, split = route.table, self.split
        if split is None:
            return None
        if table.split is None or table.signature is None:
            split.retired(table.index)
            return None
        return split.submit(
            split.route(
                table, dict(self.runners), partial(self._hold, route), partial(self.released, route)
            )
        ).result(_PUBLISH_SECONDS)

    def stable_only(self, index: int) -> None:
        """Take the candidate of that model out of the route at once; the next table ends it."""
        with self._lock:
            for route in self._routes.values():
                if route.table.index == index:
                    route.division = None

    def trip(self, index: int, test: str) -> bool:
        """A breaker took a candidate out, for as long as its test lasts. False if that is over."""
        with self._lock:
            tables = (route.table for route in self._routes.values())
            if not any(
                table.index == index and table.split is not None and table.split.test == test
                for table in tables
            ):
                return False
            self._tripped.setdefault(index, test)
        self.stable_only(index)
        return True

    def _drained_to(self, index: int, revision: int) -> int:
        """The lowest revision of a model that a request may hold. Under the lock."""
        return min([revision, *(r.table.revision for r in self._old if r.table.index == index)])

    def _hold(self, route: InlineRoute) -> None:
        """What is divided holds it too: copies go on when the request is answered."""
        with self._lock:
            route.leases += 1
            self._leases += 1

    def released(self, route: InlineRoute) -> None:
        """A lease was released."""
        with self._lock:
            route.leases -= 1
            self._leases -= 1
            if not self._leases:
                self._idle.notify_all()
            if route.leases or route not in self._old:
                return
            self._old.remove(route)
            table = route.table
            current = self._routes.get(table.model)
            revision = current.table.revision if current is not None else table.revision + 1
            drained = self._drained_to(table.index, revision)
        self._on_drained(table.index, drained)

    def wait_idle(self, seconds: float) -> bool:
        """Block until no lease is held, at most that long; whether none is."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._leases, seconds)

    def clear(self) -> None:
        """Forget every table and version; counters stay."""
        with self._lock:
            self._routes = {}
            self._old = []
            self._tripped = {}
        self.runners = {}
        self.remote = {}
        self.split = None
        self.started = False

    # --- what callers ask

    def lease(
        self, model: str, version: str | None, key: bytes | None, *, arm: str | None = None
    ) -> InlineLease | DividedLease:
        """Choose by the table in force and hold it (see `hotswap.ports.DataPlane`)."""
        with self._lock:
            self._check_open()
            route = self._routes.get(model)
            if route is None or not route.table.versions:
                raise NotFound(_no_model(model, self._names()))
            table = route.table
            if arm is not None and arm != "stable":
                version = _named(table, version, arm)
            if version is not None:
                chosen = route.arms.get(version)
            elif arm is not None or table.split is None:
                chosen = route.choice
            elif route.division is not None and self.split is not None:
                route.leases += 1
                self._leases += 1
                return DividedLease(self, route, route.division, self.split, key)
            else:
                chosen = route.safe
            if chosen is None:
                if version is None:
                    raise _inactive(table)
                known = ", ".join(route.arms)
                raise NotFound(f"model {model!r} has no version {version!r}; registered: {known}")
            if chosen.runners and table.signature is not None:
                role = "stable" if version is None else "pinned"
                counters = self._counters_of(model, chosen.entry.version, role)
                route.leases += 1
                self._leases += 1
                return InlineLease(self, route, chosen, table.signature, counters)
        raise self._cold(model, chosen.entry)

    def counters(self, model: str, version: str, role: str) -> Counters:
        """The operational counters of a version in a role."""
        with self._lock:
            return self._counters_of(model, version, role)

    def _counters_of(self, model: str, version: str, role: str) -> Counters:
        key = (model, version, role)
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = Counters(*key)
        return found

    def _cold(self, model: str, entry: VersionEntry) -> Unavailable:
        """A version that is not loaded: ask for it once a second, and say when to come back."""
        now = _now()
        if now - self._asked.get((model, entry.version), -1.0) >= 1.0:
            self._asked[(model, entry.version)] = now
            self._on_wanted(model, entry.version)
        if entry.state == "UNAVAILABLE" and entry.reason:
            return Unavailable(entry.reason, 10)
        return Unavailable(
            f"version {entry.version!r} of model {model!r} is being loaded; try again"
        )

    def _names(self) -> list[str]:
        return sorted(name for name, route in self._routes.items() if route.table.versions)

    def _check_open(self) -> None:
        if self.refusal:
            raise Unavailable(f"the engine cannot answer: {self.refusal}")

    def table(self, model: str) -> RouteTable:
        self._check_open()
        route = self._routes.get(model)
        if route is None or not route.table.versions:
            raise NotFound(_no_model(model, self.models()))
        return route.table

    def models(self) -> list[str]:
        self._check_open()
        with self._lock:
            return self._names()

    def ready(self) -> bool:
        """Whether it is started and at least one model's active version can answer."""
        if self.refusal or not self.started:
            return False
        with self._lock:
            choices = [route.choice for route in self._routes.values()]
        return any(arm is not None and arm.runners for arm in choices)

    def stats(self) -> list[ModelStats]:
        with self._lock:
            counters = [self._counters[key] for key in sorted(self._counters)]
        return [each.stats() for each in counters]


def _named(table: RouteTable, version: str | None, arm: str) -> str:
    """The version of an arm of the running split."""
    if table.split is None:
        raise NotFound(f"no test of model {table.model!r} is running")
    if version is not None:
        return version
    return table.split.candidate if arm == "candidate" else table.split.baseline


def _no_model(model: str, names: list[str]) -> str:
    known = f"; there are: {', '.join(names[:20])}" if names else ", and none is registered"
    return f"there is no model {model!r}{known}"


def _inactive(table: RouteTable) -> Unavailable:
    reasons = [entry.reason for entry in table.versions if entry.reason]
    why = f" ({reasons[-1]})" if reasons else ""
    return Unavailable(f"model {table.model!r} has no active version: switch to one first{why}")


__all__ = ["Counters", "DividedLease", "InlineLease", "InlinePlane"]
