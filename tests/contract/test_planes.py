"""One suite for the data planes: the server's worker over its hosts, the engine within a program."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import pytest

from hotswap.core.routing import HostRef, RouteTable, Split, VersionEntry, assign, hashed, place
from hotswap.core.signature import Signature
from hotswap.core.windows import PairCounts, Window
from hotswap.errors import NotFound
from hotswap.ipc.frames import Failure
from hotswap.ports import Array, DataPlane
from hotswap.serving.inline import InlinePlane
from hotswap.serving.inline_runner import InlineRunner
from hotswap.serving.inline_split import SplitLoop
from tests.unit.serving.conftest import SIGNATURE, Rig
from tests.unit.serving.hosts import FakeHost

CANDIDATE, BASELINE, TWIN = 0, 6_000, 9_999
FAR_NS = 3_600_000_000_000


class Told(NamedTuple):
    """What a caller was told."""

    y: float
    version: str
    fallback: str | None


class Subject(Protocol):
    """A plane with model ``m``, v1 and v2 (and a twin of v1), each under the test's command."""

    plane: DataPlane

    @property
    def tripped(self) -> list[str]: ...

    async def divide(self, **split: Any) -> None: ...

    def behave(
        self, host: str, *, factor: float = 2.0, fail: bool = False, hold: bool = False
    ) -> None: ...

    def coins(self, *places: int) -> None: ...

    def asked(self, host: str) -> int:
        """How many calls it was given."""
        ...

    def counted(self) -> Iterable[Window]:
        """Every window, closed now."""
        ...

    def reported(self) -> Iterable[Window]:
        """The windows that were reported in their own time."""
        ...


def split_of(table: RouteTable, more: Mapping[str, Any]) -> Split:
    settings: dict[str, Any] = {
        "test": "t", "stage": 1, "weight": 5_000, "salt": "s", "budget_ms": 5_000.0,
        "candidate": "v2", "baseline": "v1",
    }  # fmt: skip
    return Split(**(settings | dict(more)))


class OfWorker:
    """The worker's plane, with hosts that speak its wire."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.plane: DataPlane = rig.plane

    @property
    def tripped(self) -> list[str]:
        return [str(test) for what, test, _ in self._rig.said if what == "tripped"]

    async def divide(self, **more: Any) -> None:
        rig = self._rig
        for name in ("v1", "v2", "twin"):
            await rig.host(name)
        stable = more.pop("stable", "v1")
        if more.pop("twin", False):
            more["twin"] = (HostRef("twin", "htwin", rig.hosts["twin"].slot),)
        table = rig.table(
            1, stable, rig.entry("v1", rig.hosts["v1"]), rig.entry("v2", rig.hosts["v2"])
        )
        rig.commit(msgspec.structs.replace(table, split=split_of(table, more)), push=True)
        await rig.until_said("ack", 1, 1)

    def behave(
        self, host: str, *, factor: float = 2.0, fail: bool = False, hold: bool = False
    ) -> None:
        fake: FakeHost = self._rig.hosts[host]
        fake.factor, fake.hold = factor, hold
        fake.fail = (lambda number: Failure([number], "model", "ValueError: no", "")) if fail else (
            None
        )  # fmt: skip

    def asked(self, host: str) -> int:
        return len(self._rig.hosts[host].calls)

    def coins(self, *places: int) -> None:
        self._rig.coins(*places)

    def counted(self) -> Iterable[Window]:
        return self._rig.counted()

    def reported(self) -> Iterable[Window]:
        self._rig.plane.report()
        return self._rig.windows


class Doubler:
    """An executor under a test's command."""

    signature: Signature = SIGNATURE

    def __init__(self) -> None:
        self.factor = 2.0
        self.fail = False
        self.asked = 0
        self.free = threading.Event()
        self.free.set()

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.asked += 1
        self.free.wait(30)
        if self.fail:
            raise ValueError("no")
        return {"y": self.factor * inputs["x"]}

    def close(self) -> None:
        self.free.set()


class OfEngine:
    """The engine's plane, with versions on threads."""

    def __init__(self) -> None:
        self._tripped: list[str] = []
        self._windows: list[Window] = []
        self._models = {name: Doubler() for name in ("v1", "v2", "twin")}
        self._runners = {name: self._runner(name) for name in self._models}
        self._threads = [threading.Thread(target=each.work) for each in self._runners.values()]
        self._inline = InlinePlane(
            on_drained=lambda index, revision: None,
            on_wanted=lambda model, version: None,
            wall_ms=lambda: 1,
        )
        self.plane: DataPlane = self._inline
        self._split = self._inline.split = SplitLoop(
            block_of=self._inline.counters,
            on_counted=self._windows.extend,
            on_tripped=lambda index, test, why, failures: self._tripped.append(test),
            queue_rows=4096,
            on_thread=True,
            wall_ms=lambda: 1,
        )
        self._inline.runners = self._runners
        self._inline.refusal = ""
        for thread in self._threads:
            thread.start()

    @property
    def tripped(self) -> list[str]:
        return self._tripped

    def _runner(self, name: str) -> InlineRunner:
        return InlineRunner(
            self._models[name], name=name, steady_seconds=0.0001, batch_rows=64, queue_rows=4096,
            hang_seconds=30, finite=False, describe=repr,
        )  # fmt: skip

    async def divide(self, **more: Any) -> None:
        entries = tuple(
            VersionEntry(name, "x", "READY", hosts=(HostRef(name, "", 0),)) for name in ("v1", "v2")
        )
        stable = more.pop("stable", "v1")
        if more.pop("twin", False):
            more["twin"] = (HostRef("twin", "", 0),)
        table = RouteTable("m", 1, 1, stable, SIGNATURE, entries)
        table = msgspec.structs.replace(table, split=split_of(table, more))
        await asyncio.to_thread(self._inline.publish, table)

    def behave(
        self, host: str, *, factor: float = 2.0, fail: bool = False, hold: bool = False
    ) -> None:
        model = self._models[host]
        model.factor, model.fail = factor, fail
        (model.free.clear if hold else model.free.set)()

    def asked(self, host: str) -> int:
        return self._models[host].asked

    def coins(self, *places: int) -> None:
        left = [(each << 64) // 10_000 + 1 for each in places]
        self._split.coin = lambda: left.pop(0) if len(left) > 1 else left[0]

    def counted(self) -> Iterable[Window]:
        async def due() -> list[Window]:
            return self._split.windows.due(time.monotonic_ns() + FAR_NS)

        self._windows += self._split.submit(due()).result(10)
        return self._windows

    def reported(self) -> Iterable[Window]:
        return list(self._windows)

    def close(self) -> None:
        for name, runner in self._runners.items():
            self._models[name].free.set()
            runner.close()
        self._split.stop()
        for thread in self._threads:
            thread.join()


@pytest.fixture(params=["worker", "engine"])
async def subject(
    request: pytest.FixtureRequest, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Subject]:
    from hotswap.serving import windows

    monkeypatch.setattr(windows, "LATENCY_GAP_NS", 0)  # every latency is taken
    if request.param == "engine":
        engine = OfEngine()
        yield engine
        await asyncio.to_thread(engine.close)
        return
    rig = Rig(runtime_dir)
    yield OfWorker(rig)
    for route in (*rig.plane.routes.values(), *rig.plane._next.values()):
        for link in route.links():
            link.close()
    for fake in rig.hosts.values():
        await fake.stop()
    await asyncio.sleep(0)


async def ask(
    subject: Subject, *, key: bytes | None = None, arm: str | None = None, seconds: float = 20.0
) -> Told:
    """One request of one row."""
    lease = subject.plane.lease("m", None, key, arm=arm)
    try:
        inputs = {"x": np.array([1.0])}
        answer = await lease.predict(inputs, (), 1, time.monotonic() + seconds, "id")
        return Told(float(answer["y"][0]), lease.version, lease.fallback)
    finally:
        lease.release()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so: threads and hosts tell of nothing."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def sums(windows: Iterable[Window]) -> dict[str, tuple[int, int, int, int]]:
    """Requests, errors, timeouts and invalid outputs by arm."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for window in windows:
        for name, arm in window.arms.items():
            more = (arm.requests, arm.errors, arm.timeouts, arm.invalid)
            was = found.get(name, (0, 0, 0, 0))
            found[name] = (
                was[0] + more[0], was[1] + more[1], was[2] + more[2], was[3] + more[3],
            )  # fmt: skip
    return found


async def pairs(subject: Subject, count: int) -> PairCounts:
    """The counts of pairs, once there are so many."""
    total = 0
    whole = PairCounts()
    async with asyncio.timeout(20):
        while total < count:
            whole = PairCounts()
            for window in subject.reported():
                if window.pairs is not None:
                    for field in ("total", "both", "agree", "worse", "better", "neither"):
                        both = getattr(whole, field) + getattr(window.pairs, field)
                        setattr(whole, field, both)
            total = whole.total
            await asyncio.sleep(0.01)
    return whole


async def test_the_coin_decides(subject: Subject) -> None:
    """Low coins are the candidate's, high ones the twin's, the rest the baseline's."""
    await subject.divide(twin=True, twin_weight=2_500)
    subject.behave("v2", factor=3.0)
    subject.behave("twin", factor=4.0)
    subject.coins(CANDIDATE, BASELINE, TWIN)
    told = [await ask(subject) for _ in range(3)]
    assert told == [(3.0, "v2", None), (2.0, "v1", None), (4.0, "v1", None)]
    assert sums(subject.counted()) == {
        "candidate": (1, 0, 0, 0), "baseline": (1, 0, 0, 0), "twin": (1, 0, 0, 0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "reason", "counted"),
    [
        ({"fail": True}, "error", (1, 1, 0, 0)),
        ({"factor": math.nan}, "invalid", (1, 0, 0, 1)),
        ({"hold": True}, "timeout", (1, 0, 1, 0)),
    ],
)
async def test_a_candidates_failure_is_its_own(
    subject: Subject, bad: dict[str, Any], reason: str, counted: tuple[int, ...]
) -> None:
    """The baseline answers, and the candidate is charged with what it did."""
    await subject.divide(budget_ms=5_000.0 if reason != "timeout" else 60.0)
    subject.behave("v2", **bad)
    subject.coins(CANDIDATE)
    assert await ask(subject) == (2.0, "v1", reason)
    assert sums(subject.counted()) == {"candidate": counted}
    assert [window.fallbacks for window in subject.counted()] == [{reason: 1}]
    stats = {(each.version, each.role): each for each in subject.plane.stats()}
    assert stats["v2", "candidate"].fallbacks == 1
    assert sum(stats["v2", "candidate"].errors.values()) == 1
    assert stats["v1", "stable"].success == 1


async def test_a_key_has_one_arm_on_every_plane(subject: Subject) -> None:
    """The arm of a key is the hash's, and its first request is told of as a unit."""
    await subject.divide(weight=3_000)
    split = Split("t", 1, "v2", "v1", 3_000, "s", 1.0)
    keys = [f"user-{number}".encode() for number in range(30)]
    for key in keys * 2:
        wanted = "v2" if assign(split, place(hashed("s", key))) == "candidate" else "v1"
        assert (await ask(subject, key=key)).version == wanted
    units = [event.unit for window in subject.counted() for event in window.units]
    assert sorted(units) == sorted(hashed("s", key) for key in keys)
    assert sums(subject.counted()) == {}


async def test_a_mirror_answers_nobody(subject: Subject) -> None:
    """The candidate is asked too, and compared; the baseline answers."""
    await subject.divide(weight=0, mirror=10_000)
    subject.behave("v2", factor=3.0)
    assert [await ask(subject) for _ in range(4)] == [(2.0, "v1", None)] * 4
    found = await pairs(subject, 4)
    assert (found.both, found.agree) == (4, 0)
    assert sum(window.mirrored for window in subject.reported()) == 4
    shadow = [each.success for each in subject.plane.stats() if each.role == "shadow"]
    assert shadow == [4]


async def test_a_pair_asks_both(subject: Subject) -> None:
    """The coin says which answers; both are compared."""
    await subject.divide(pair=True)
    subject.coins(CANDIDATE, BASELINE)
    assert [(await ask(subject)).version for _ in range(2)] == ["v2", "v1"]
    found = await pairs(subject, 2)
    assert (found.total, found.both, found.agree) == (2, 2, 2)


async def test_a_candidate_that_fails_outright_is_taken_out(subject: Subject) -> None:
    """After so many failures in a row it is not asked any more, and that is told once."""
    await subject.divide()
    subject.behave("v2", fail=True)
    subject.coins(*[BASELINE] * 20, CANDIDATE)
    told = [await ask(subject) for _ in range(40)]
    reasons = [each.fallback for each in told[20:]]
    assert {each.version for each in told} == {"v1"}
    assert reasons[:5] == ["error"] * 5
    assert reasons[-1] == "breaker"
    assert subject.tripped == ["t"]


async def test_named_arms_toss_no_coin(subject: Subject) -> None:
    """They answer as they are asked, and are no evidence."""
    await subject.divide()
    arms = [(await ask(subject, arm=arm)).version for arm in ("stable", "baseline", "candidate")]
    assert arms == ["v1", "v1", "v2"]
    assert sums(subject.counted()) == {}


async def test_too_little_time_is_no_test(subject: Subject) -> None:
    """Such a request goes to the baseline, and is counted as left out."""
    await subject.divide(reserve_ms=5_000.0)
    subject.coins(CANDIDATE)
    assert await ask(subject, seconds=4.0) == (2.0, "v1", None)
    assert sums(subject.counted()) == {}
    assert [window.excluded for window in subject.counted()] == [1]


async def test_during_the_bake_the_version_before_answers_for_the_new_one(
    subject: Subject,
) -> None:
    """The candidate is stable and has all the weight; what it fails at is still answered."""
    await subject.divide(weight=10_000, stable="v2")
    assert (await ask(subject)).version == "v2"
    subject.behave("v2", fail=True)
    assert await ask(subject) == (2.0, "v1", "error")


async def test_a_client_that_goes_away_changes_no_outcome(subject: Subject) -> None:
    """Its first attempt is decided all the same, by its budget."""
    await subject.divide(budget_ms=200.0)
    subject.behave("v2", hold=True)
    subject.coins(CANDIDATE)
    client = asyncio.create_task(ask(subject))
    await until(lambda: subject.asked("v2") == 1)
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    await until(lambda: bool(sums(subject.reported())))
    assert sums(subject.reported()) == {"candidate": (1, 0, 1, 0)}


async def test_without_a_split_there_are_no_arms(subject: Subject) -> None:
    """Said as such."""
    with pytest.raises(NotFound):
        subject.plane.lease("m", None, None, arm="candidate")
