"""Replays as control runs them: in turn, with patience, and with nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hotswap.control import replaying
from hotswap.control.jobs import Progress
from hotswap.control.operations import Operations
from hotswap.control.recorded import Recorded
from hotswap.control.replaying import Replaying
from hotswap.control.warming import Policy
from hotswap.core.lifecycle import ModelDocument, VersionDocument
from hotswap.core.quality_views import Agreement, Coverage, Quality
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Artifact, VersionRecord, VersionSettings
from hotswap.errors import Conflict, LoadError, UntrustedCode
from hotswap.stores.memory import MemoryStore
from hotswap.testing.clock import ManualClock

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, 2)),), (TensorSpec("predict", "FP64", (-1,)),))
QUALITY = Quality(
    "m", "regression", True, "v1", "v2", (), (), Agreement(8, 6), (), Coverage(10, 0, 0, 0)
)


class FakeJobs:
    """Answers every request at once, or as it is told; keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.running: Callable[[Progress], Any] | None = None
        self.judging: Exception | None = None
        self.closed = 0

    async def run(
        self, what: str, request: Mapping[str, object], kind: Any, progress: Progress | None = None
    ) -> Any:
        self.sent.append(dict(request))
        match request["kind"]:
            case "replay_take":
                planned = replaying._Planned([], "true", 10, 9, 3, {"v1": 10})
                return replaying._Taken("/records/replays/m/.1-v2.part", planned)
            case "replay_run":
                assert progress is not None
                if self.running is not None:
                    await self.running(progress)
                progress(5, 10)
                await asyncio.sleep(0)
                return replaying._Done(2, 0.5, ("ValueError: no (2 rows)",))
            case "replay_judge":
                if self.judging is not None:
                    raise self.judging
                return QUALITY
        return True

    async def close(self) -> None:
        self.closed += 1

    def kinds(self) -> list[str]:
        return [str(request["kind"]).removeprefix("replay_") for request in self.sent]


class Stage:
    def __init__(self, *, records: bool = True, signature: Signature | None = SIGNATURE) -> None:
        self.jobs = FakeJobs()
        runner: Any = self.jobs
        recorded = Recorded(
            Path("/records"), None, runner, runner, lambda: 0.0, dict, lambda: runner,
            redacted=("name",),
        )  # fmt: skip
        record = VersionRecord(
            "m", "v2", Artifact("/a", "model.py", "python", "sha256:1"), VersionSettings(), "/m/v2",
            {}, "", 0.0, "",
        )  # fmt: skip
        self.policy = Policy(
            trust_code=True, trust_digests=(), allow_unvalidated=False, load_seconds=30.0,
            memory_budget=0, roots=("/state",),
        )  # fmt: skip
        catalogue: Any = SimpleNamespace(
            model=lambda _: ModelDocument("m", 1, signature=signature, active="v1"),
            version=lambda *_: VersionDocument(record, runs_code="model.py is Python"),
        )
        registry: Any = SimpleNamespace(check=lambda *_: None)
        self.operations = Operations(MemoryStore(), ManualClock())
        self.replaying = Replaying(
            recorded if records else None, catalogue, registry, self.policy, self.operations,
            ManualClock(),
        )  # fmt: skip


async def test_three_jobs_make_one_replay() -> None:
    """The model runs in the one that has no credentials; it goes when it is done."""
    stage = Stage()
    found = await stage.replaying.replay("m", "v2", max_rows=10, by="age")
    assert stage.jobs.kinds() == ["take", "run", "judge"]
    assert stage.jobs.closed == 1
    assert (found.rows, found.requests, found.errors, found.left_out) == (10, 9, 2, 3)
    assert (found.agreement, found.ms_per_row) == (0.75, 50.0)
    assert found.quality.notes[0].startswith("A replay: v2 was run over 10 recorded rows")
    take, run, judge = stage.jobs.sent
    assert (take["max_rows"], take["by"], take["kept"]["redacted"]) == (10, "age", ("name",))
    assert (run["trusted"], run["roots"], run["public"]) == (True, ("/state",), SIGNATURE)
    assert judge["hidden"] == ("name",)
    (operation,) = stage.operations.all()
    assert (operation.kind, operation.state) == ("replay", "done")
    assert operation.reason == "10 rows: 2 failed, 75.00% answered alike"


async def test_what_may_not_be_run_is_refused_at_once() -> None:
    """Without trust, without records, of a model that never answered."""
    stage = Stage()
    stage.policy.trust_code = False
    with pytest.raises(UntrustedCode):
        await stage.replaying.replay("m", "v2")
    with pytest.raises(Conflict, match="--records on"):
        await Stage(records=False).replaying.replay("m", "v2")
    with pytest.raises(Conflict, match="has answered nothing yet"):
        await Stage(signature=None).replaying.replay("m", "v2")
    assert stage.jobs.sent == []
    assert stage.operations.all() == []


async def test_what_was_taken_goes_when_it_fails() -> None:
    """Whichever job it was, and when the caller is cancelled."""
    stage = Stage()
    stage.jobs.judging = LoadError("the disk is full")
    with pytest.raises(LoadError, match="the disk is full"):
        await stage.replaying.replay("m", "v2")
    assert stage.jobs.kinds() == ["take", "run", "judge", "drop"]
    assert stage.operations.all()[0].state == "failed"
    stage = Stage()
    began = asyncio.Event()

    async def hang(progress: Progress) -> None:
        began.set()
        await asyncio.Event().wait()

    stage.jobs.running = hang
    task = asyncio.create_task(stage.replaying.replay("m", "v2"))
    await began.wait()
    assert stage.operations.all()[0].state == "preparing"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.jobs.kinds() == ["take", "run", "drop"]
    assert stage.jobs.closed == 1
    assert stage.operations.all()[0].state == "failed"


async def test_a_version_that_says_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that says that it goes on."""
    monkeypatch.setattr(Replaying, "_limit", lambda *_: 1.0)
    stage = Stage()

    async def slow(progress: Progress) -> None:
        for at in range(12):
            progress(at, 10)
            await asyncio.sleep(0.1)

    stage.jobs.running = slow
    assert (await stage.replaying.replay("m", "v2")).rows == 10

    async def hang(progress: Progress) -> None:
        await asyncio.Event().wait()

    stage.jobs.running = hang
    with pytest.raises(LoadError, match="m/v2 was ended: nothing came from it for 1 s"):
        await stage.replaying.replay("m", "v2")
    assert stage.jobs.kinds()[-1] == "drop"


async def test_replays_take_turns() -> None:
    """The second begins when the first is done; both are shown meanwhile."""
    stage = Stage()
    began, go = asyncio.Event(), asyncio.Event()

    async def wait(progress: Progress) -> None:
        began.set()
        await go.wait()

    stage.jobs.running = wait
    both = [asyncio.create_task(stage.replaying.replay("m", "v2")) for _ in range(2)]
    await began.wait()
    assert stage.jobs.kinds() == ["take", "run"]
    assert [each.state for each in stage.operations.all()] == ["preparing"] * 2
    go.set()
    await asyncio.gather(*both)
    assert stage.jobs.kinds() == ["take", "run", "judge"] * 2


def test_patience_is_that_of_a_host_and_a_minute() -> None:
    """What version.yaml says of loading counts before the server's own."""
    stage = Stage()
    assert stage.replaying._limit(VersionSettings()) == 90.0
    assert stage.replaying._limit(VersionSettings(hang_seconds=45.0)) == 105.0
    assert stage.replaying._limit(VersionSettings(load_seconds=300.0)) == 360.0
