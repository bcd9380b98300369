"""Rollouts within the embedded engine: candidates good and bad, on threads and in processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hotswap import (
    BadInput,
    ConfigError,
    Conflict,
    Engine,
    NotFound,
    OperationView,
    RolloutView,
    SwitchingStrategyType,
)
from hotswap.app import engine_wiring

YAML = "signature: {inputs: [{name: x, datatype: FP64, shape: [-1, 1]}]}\nsamples: [[0.0], [0.5]]\n"
#: Rows on which a bad candidate is bad; its samples are not among them.
ROW = [[1.0]]
ISOLATIONS = ("process", "thread")

STABLE = """
import numpy as np

class Model:
    def predict(self, X):
        return np.ones(len(X))
"""

#: A candidate answers two, and before that does this where the first value is 1.
CANDIDATE = """
import os
import time
from pathlib import Path

import numpy as np

class Model:
    def predict(self, X):
        if X[0, 0] >= 1:
            {act}
        return np.full(len(X), 2.0)
"""

PIDS = """
import os

import numpy as np

class Model:
    def predict(self, X):
        return np.full(len(X), float(os.getpid()))
"""

SHADOWED = """
from pathlib import Path

import numpy as np

class Model:
    def predict(self, X, shadow=False):
        if X[0, 0] >= 1:
            (Path({folder!r}) / ("shadow" if shadow else "answered")).touch()
        return np.ones(len(X))
"""

ACTS = {
    "raises": "raise ValueError('the candidate does not like this row')",
    "nan": "return np.full(len(X), np.nan)",
    "rows": "return np.zeros(len(X) + 1)",
}
EXIT = "os._exit(3)"
#: At once half of the requests, until somebody decides.
HALF = {"initial_percentage": 50, "step_percentage": 50, "evaluation_period_seconds": 600}
#: Promoted after two steps of half a second, whatever was seen.
QUICK = {"duration_seconds": 1, "steps": 2, "require_proof": False}


def write(folder: Path, source: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source)
    (folder / "version.yaml").write_text(YAML)
    return folder


Make = Callable[..., contextlib.AbstractAsyncContextManager[Engine]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Engines with model ``m``: v1 answers 1 and is active, v2 is what is asked for."""
    write(tmp_path / "models" / "m" / "v1", STABLE)

    @contextlib.asynccontextmanager
    async def made(
        candidate: str = "pass", *, stable: str = "", source: str = "", **settings: Any
    ) -> AsyncIterator[Engine]:
        if stable:
            (tmp_path / "models" / "m" / "v1" / "model.py").write_text(stable)
        async with Engine(
            tmp_path / "models", trust_code=True, settle_seconds=0, **settings
        ) as engine:
            if not (tmp_path / "v2").exists():
                source = source or CANDIDATE.format(act=candidate)
                path = write(tmp_path / "v2", source)
                await asyncio.to_thread(engine.registry.register_model, "m", "v2", path)
            yield engine

    return made


class Traffic:
    """Clients that ask without a pause; everything that they were told."""

    def __init__(self, engine: Engine, **how: Any) -> None:
        self.versions: Counter[str] = Counter()
        self.fallbacks: Counter[str | None] = Counter()
        self.failed: list[BaseException] = []
        self.wrong = 0
        self._engine = engine
        self._how = {"timeout": 20.0, **how}
        self._done = False
        self._tasks: list[asyncio.Task[None]] = []

    async def _client(self) -> None:
        while not self._done:
            try:
                answer = await self._engine.predict("m", ROW, **self._how)
            except Exception as exc:  # noqa: BLE001 - looked at by the test
                self.failed.append(exc)
            else:
                self.versions[answer.version] += 1
                self.fallbacks[answer.fallback] += 1
                self.wrong += answer.values.tolist() != [float(answer.version[1:])]
            await asyncio.sleep(0.001)

    async def __aenter__(self) -> Traffic:
        self._tasks = [asyncio.create_task(self._client()) for _ in range(4)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._done = True
        await asyncio.gather(*self._tasks)

    async def until(self, enough: Callable[[Traffic], bool]) -> None:
        async with asyncio.timeout(60):
            while not enough(self):  # noqa: ASYNC110 - the clients are tasks of their own
                await asyncio.sleep(0.005)


async def ended(engine: Engine, op: object, *phases: str) -> RolloutView:
    """The rollout when it is over."""
    view = await engine.wait_switch(op, *phases, timeout=90)  # type: ignore[arg-type]
    assert isinstance(view, RolloutView)
    return view


async def seen(engine: Engine, op: object, enough: Callable[[RolloutView], bool]) -> None:
    """Wait until the rollout looks so."""
    async with asyncio.timeout(90):
        while not enough(engine.rollout(op)):  # type: ignore[arg-type]  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def exposed(engine: Engine, op: object) -> None:
    """Wait until requests are divided: there are hosts for it, the twin's too."""
    await seen(engine, op, lambda view: view.weights["v2"] > 0)


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("act", ACTS)
async def test_a_candidate_that_fails_is_answered_for_and_rolled_back(
    make: Make, act: str, isolation: str
) -> None:
    """No prediction fails, the stable version answers, and the rollout says why it ended."""
    async with make(ACTS[act], isolation=isolation) as engine, Traffic(engine) as traffic:
        op = await engine.start_switch("v2", "canary", HALF, model="m", budget_ms=10_000)
        view = await ended(engine, op)
        requests = engine.get_switcher_stats()["requests"]
    assert traffic.failed == []
    assert traffic.wrong == 0
    assert set(traffic.versions) == {"v1"}
    assert (view.phase, view.reason in ("tripwire", "guardrail")) == ("RolledBack", True)
    assert view.counts["fallbacks"] >= 2
    reason = "error" if act == "raises" else "invalid"
    assert traffic.fallbacks[reason] >= view.counts["fallbacks"] - 4
    of_candidate = [each for each in requests if each["role"] == "candidate"]
    assert [each["version"] for each in of_candidate] == ["v2"]
    assert of_candidate[0]["fallbacks"] == sum(
        count for reason, count in traffic.fallbacks.items() if reason
    )


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_candidate_that_hangs_is_answered_for_in_time(
    make: Make, tmp_path: Path, isolation: str
) -> None:
    """The stable version answers within the caller's deadline, however the candidate hangs."""
    gate = tmp_path / "gate"
    hang = f"while not Path({str(gate)!r}).exists(): time.sleep(0.01)"
    async with make(hang, isolation=isolation) as engine:
        async with Traffic(engine) as traffic:
            op = await engine.start_switch("v2", "canary", HALF, model="m", budget_ms=250)
            view = await ended(engine, op)
        gate.touch()  # its thread can end
    assert traffic.failed == []
    assert set(traffic.versions) == {"v1"}
    assert view.phase == "RolledBack"
    assert traffic.fallbacks["timeout"] >= 4


async def test_a_candidate_that_exits_costs_only_itself(make: Make) -> None:
    """It runs in a process of its own: the program goes on, and no prediction fails."""
    async with make(EXIT) as engine, Traffic(engine) as traffic:
        op = await engine.start_switch("v2", "canary", HALF, model="m", budget_ms=10_000)
        view = await ended(engine, op)
        assert (await engine.predict("m", ROW)).values.tolist() == [1.0]
    assert traffic.failed == []
    assert set(traffic.versions) == {"v1"}
    assert (view.phase, view.reason) == ("RolledBack", "tripwire")
    assert traffic.fallbacks["lost"] >= 1


async def test_an_answer_that_is_lost_with_a_promoted_candidate_is_given_once_more(
    make: Make, tmp_path: Path
) -> None:
    """A promoted version stays in its process; if that dies, it is started again and answers."""
    once = f"""flag = Path({str(tmp_path / "died")!r})
            if X[0, 0] == 7 and not flag.exists():
                flag.touch()
                os._exit(3)"""
    async with make(once) as engine:
        op = await engine.start_switch(
            "v2", "gradual", QUICK, model="m", bake_seconds=0, watch_seconds=0
        )
        async with Traffic(engine):
            await ended(engine, op)
        answer = await engine.predict("m", [[7.0]], timeout=60)
    assert (answer.version, answer.values.tolist()) == ("v2", [2.0])
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_good_candidate_is_promoted(make: Make, isolation: str) -> None:
    """It ramps up, takes over, is baked, and no prediction fails on the way."""
    async with make(isolation=isolation) as engine, Traffic(engine) as traffic:
        op = await engine.start_switch(
            "v2", SwitchingStrategyType.GRADUAL, QUICK, model="m", bake_seconds=0.5,
            watch_seconds=0, budget_ms=10_000, guardrails=[{"metric": "error_rate"}],
        )  # fmt: skip
        assert isinstance(op, RolloutView)
        view = await ended(engine, op)
        assert (view.phase, view.reason) == ("Healthy", "promoted")
        assert (await engine.predict("m", ROW)).version == "v2"
        status = engine.get_switching_status()
        assert status["models"]["m"]["active"] == "v2"
        assert status["switching"] is False
        assert engine.get_switcher_stats()["rollouts"] == {"m": {"gradual": {"Healthy": 1}}}
        back = await engine.rollback("m")
        assert (back.to, (await engine.predict("m", ROW)).version) == ("v1", "v1")
    assert traffic.failed == []
    assert traffic.wrong == 0
    assert min(traffic.versions["v1"], traffic.versions["v2"]) > 0


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_where_versions_run(make: Make, isolation: str) -> None:
    """Stable within the program; a candidate apart from it, even one that was loaded before."""
    async with make(stable=PIDS, source=PIDS, isolation=isolation) as engine:
        loaded = await engine.predict("m", ROW, version="v2")
        assert int(loaded.values[0]) == os.getpid()
        op = await engine.start_switch("v2", "canary", HALF, model="m", budget_ms=10_000)
        await exposed(engine, op)
        candidate = await engine.predict("m", ROW, arm="candidate")
        stable = await engine.predict("m", ROW, arm="stable")
        assert (candidate.version, stable.version) == ("v2", "v1")
        assert int(stable.values[0]) == os.getpid()
        assert (int(candidate.values[0]) == os.getpid()) == (isolation == "thread")
        memory = {v.version: v.memory_bytes for v in engine.registry.get_model("m").versions}
        assert memory["v2"] > 0
        await engine.abort_switch(op)
        await ended(engine, op)
    if isolation == "process":
        pid = int(candidate.values[0])
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_promoted_version_can_be_brought_in(make: Make) -> None:
    """It is loaded within the program, its process ends, and no prediction fails."""
    async with make(source=PIDS) as engine, Traffic(engine) as traffic:
        op = await engine.start_switch(
            "v2", "gradual", QUICK, model="m", bake_seconds=0, watch_seconds=0, budget_ms=10_000
        )
        with pytest.raises(Conflict, match="stay where they are"):
            await engine.bring_in("m")
        await ended(engine, op)
        apart = int((await engine.predict("m", ROW)).values[0])
        await engine.bring_in("m")
        answer = await engine.predict("m", ROW)
        assert (answer.version, int(answer.values[0])) == ("v2", os.getpid())
        assert apart != os.getpid()
        async with asyncio.timeout(30):
            while _lives(apart):  # noqa: ASYNC110 - another thread ends it
                await asyncio.sleep(0.02)
        await engine.bring_in("m")  # it is there: nothing happens
    assert traffic.failed == []


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_shadow_answers_nobody_and_is_compared(
    make: Make, tmp_path: Path, isolation: str
) -> None:
    """Copies reach the candidate, tagged as copies; every answer is of the stable version."""
    source = SHADOWED.format(folder=str(tmp_path))
    async with make(source=source, isolation=isolation) as engine, Traffic(engine) as traffic:
        op = await engine.start_switch(
            "v2", "shadow", {"min_requests": 50}, model="m", budget_ms=10_000
        )
        view = await ended(engine, op)
    assert (view.phase, view.reason) == ("Completed", "ended")
    assert view.counts["pairs"] >= 50
    assert view.counts["pairs_candidate_failed"] == 0
    assert traffic.failed == []
    assert set(traffic.versions) == {"v1"}
    assert (tmp_path / "shadow").exists()
    assert not (tmp_path / "answered").exists()


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_champion_and_challenger_see_every_request(make: Make, isolation: str) -> None:
    """Both are asked, one answers by weight, and the pairs are compared."""
    async with make(isolation=isolation) as engine, Traffic(engine) as traffic:
        op = await engine.start_switch(
            "v2", "champion_challenger",
            {"challenger_percentage": 50, "min_pairs": 50, "promote": False}, model="m",
            budget_ms=10_000,
        )  # fmt: skip
        view = await ended(engine, op)
    assert view.phase == "Completed"
    assert view.counts["pairs"] >= 50
    assert traffic.failed == []
    assert min(traffic.versions["v1"], traffic.versions["v2"]) > 0


async def test_an_abort_takes_the_candidate_out_at_once(make: Make) -> None:
    """What begins after the abort returned is never answered by the candidate."""
    async with make() as engine, Traffic(engine) as traffic:
        op = await engine.start_switch("v2", "canary", HALF, model="m", budget_ms=10_000)
        await traffic.until(lambda seen: seen.versions["v2"] > 20)
        view = await engine.abort_switch(op)
        assert isinstance(view, RolloutView)
        after = [await engine.predict("m", ROW) for _ in range(100)]
        assert {answer.version for answer in after} == {"v1"}
        view = await ended(engine, op)
        assert (view.phase, view.reason) == ("RolledBack", "aborted")
        with pytest.raises(Conflict, match="cannot promote"):
            await engine.command(op, "promote")
        again = await engine.abort_switch(op)
        assert isinstance(again, RolloutView)
    assert traffic.failed == []


async def test_commands_and_status_of_a_rollout(make: Make) -> None:
    """It can be paused, resumed, planned, promoted and looked at from any thread."""
    async with make() as engine:
        plan = await engine.plan_switch("v2", "canary", HALF, model="m")
        assert (plan.stable, plan.strategy) == ("v1", "canary")
        async with Traffic(engine):
            op = await engine.start_switch(
                "v2", "canary", HALF, bake_seconds=0, watch_seconds=0, budget_ms=10_000
            )
            await exposed(engine, op)
            assert (await engine.command(op, "pause", why="lunch")).phase == "Paused"
            with pytest.raises(Conflict, match="paused already"):
                await engine.command(op, "pause")
            assert (await engine.command(op, "resume")).phase == "Progressing"
            status: list[dict[str, Any]] = []
            other = threading.Thread(target=lambda: status.append(engine.get_switching_status(op)))
            other.start()
            await asyncio.to_thread(other.join)
            assert (status[0]["phase"], status[0]["strategy"]) == ("Progressing", "canary")
            whole = engine.get_switching_status()
            assert whole["switching"] is True
            assert [each["version"] for each in whole["rollouts"]] == ["v2"]
            assert [each.version for each in engine.rollouts("m")] == ["v2"]
            with pytest.raises(Conflict, match="abort it first"):
                await engine.registry.switch_model("m", "v2")
            await engine.command(op, "promote", force=True)
            assert (await ended(engine, op)).phase == "Healthy"
        commands = [entry.command for entry in engine.journal(op) if entry.command]
        assert commands == ["pause", "resume", "promote"]
        with pytest.raises(NotFound):
            engine.get_switching_status("nothing")


async def test_a_key_stays_on_its_side(make: Make) -> None:
    """A caller with a key is answered by the same version every time."""
    async with make() as engine:
        op = await engine.start_switch("v2", "canary", HALF, model="m", budget_ms=10_000)
        await exposed(engine, op)
        async with Traffic(engine) as traffic:
            await traffic.until(lambda seen: seen.versions["v2"] > 0)
        sides = {}
        for user in range(20):
            answers = [await engine.predict("m", ROW, key=f"user-{user}") for _ in range(3)]
            sides[user] = {answer.version for answer in answers}
        await engine.abort_switch(op)
    assert all(len(side) == 1 for side in sides.values())
    assert set.union(*sides.values()) == {"v1", "v2"}


async def test_what_is_refused(make: Make) -> None:
    """Unknown strategies and settings, and a second rollout, each with the reason."""
    async with make() as engine:
        with pytest.raises(ConfigError, match="'blue_green' does not exist here: use 'immediate'"):
            await engine.start_switch("v2", "blue_green")
        with pytest.raises(BadInput, match="unknown key"):
            await engine.start_switch("v2", "canary", {"percent": 5})
        with pytest.raises(BadInput, match="unknown key"):
            await engine.start_switch("v2", "canary", speed=5)
        with pytest.raises(BadInput, match="argument of its own"):
            await engine.start_switch("v2", "canary", config={})
        with pytest.raises(NotFound):
            await engine.start_switch("v9", "canary")
        with pytest.raises(BadInput, match="arm must be"):
            await engine.predict("m", ROW, arm="b")
        with pytest.raises(NotFound, match="no test"):
            await engine.predict("m", ROW, arm="candidate")
        op = await engine.start_switch("v2", "canary", HALF)
        with pytest.raises(Conflict, match="on_running"):
            await engine.start_switch("v2", "shadow")
        await engine.abort_switch(op)
        await ended(engine, op)
        at_once = await engine.start_switch("v2")
        assert isinstance(at_once, OperationView)
        assert (at_once.state, (await engine.predict("m", ROW)).version) == ("done", "v2")


async def test_a_corrected_candidate_is_tried_again(make: Make, tmp_path: Path) -> None:
    """From the first step, in a process of its own, with nothing held against it."""
    fixed = tmp_path / "fixed"
    act = f"if not Path({str(fixed)!r}).exists(): raise ValueError('not yet')"
    async with make(act) as engine, Traffic(engine) as traffic:
        op = await engine.start_switch(
            "v2", "gradual", QUICK, model="m", bake_seconds=0, watch_seconds=0, budget_ms=10_000
        )
        assert (await ended(engine, op)).phase == "RolledBack"
        fixed.touch()
        again = await engine.command(op, "retry")
        assert (again.attempt, again.counts["candidate_failures"]) == (2, 0)
        assert (await ended(engine, op)).phase == "Healthy"
        await traffic.until(lambda seen: seen.versions["v2"] > 0)
    assert traffic.failed == []
    assert traffic.wrong == 0


KILLED = """
import asyncio, os, sys
from hotswap import Engine

async def main():
    async with Engine(sys.argv[1], trust_code=True, settle_seconds=0) as engine:
        await asyncio.to_thread(engine.registry.register_model, "m", "v2", sys.argv[2])
        op = await engine.start_switch("v2", "canary", {"initial_percentage": 50}, model="m")
        while not engine.rollout(op).weights["v2"]:
            await asyncio.sleep(0.02)
        answer = await engine.predict("m", [[0.0]], arm="candidate")
        print(int(answer.values[0]), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_candidate_does_not_outlive_the_program(tmp_path: Path) -> None:
    """However the program ends, the candidate's process ends with it."""
    write(tmp_path / "models" / "m" / "v1", STABLE)
    write(tmp_path / "v2", PIDS)
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, str(tmp_path / "models"), str(tmp_path / "v2"),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert program.stdout is not None
    async with asyncio.timeout(90):
        pid = int(await program.stdout.readline())
    os.kill(pid, 0)  # it lives
    program.kill()
    await program.wait()
    async with asyncio.timeout(20):
        while _lives(pid):  # noqa: ASYNC110 - it is no child of ours
            await asyncio.sleep(0.02)


def _lives(pid: int) -> bool:
    """Whether that process runs: one that waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def test_a_candidate_that_does_not_load_fails_the_rollout(make: Make) -> None:
    """With what it raised; the stable version has answered all along."""
    source = "raise RuntimeError('it cannot be imported')"
    async with make(source=source) as engine:
        op = await engine.start_switch("v2", "canary", HALF, model="m")
        view = await ended(engine, op)
        assert (view.phase, view.reason) == ("Failed", "load")
        assert "it cannot be imported" in view.message
        assert (await engine.predict("m", ROW)).version == "v1"


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_rollout_goes_on_after_a_restart(
    make: Make, tmp_path: Path, isolation: str
) -> None:
    """The same rollout, at the same step, with what was seen; it can still be promoted."""
    kept = {"state_dir": tmp_path / "state", "isolation": isolation}
    async with make(**kept) as engine:
        op = await engine.start_switch(
            "v2", "canary", HALF, model="m", bake_seconds=0, watch_seconds=0, budget_ms=10_000
        )
        assert isinstance(op, RolloutView)
        async with Traffic(engine) as traffic:
            await traffic.until(lambda seen: seen.versions["v2"] > 50)
            await seen(engine, op, lambda view: view.counts["candidate_requests"] >= 20)
            await engine.command(op, "pause")  # what was counted is saved with it
        before = engine.rollout(op)
    async with make(**kept) as engine:
        found = engine.rollout(op)
        assert (found.id, found.phase, found.step) == (before.id, "Paused", before.step)
        assert found.counts["candidate_requests"] >= 20
        async with Traffic(engine) as traffic:
            await traffic.until(lambda seen: seen.versions["v2"] > 0)
            await engine.command(op, "resume")
            await engine.command(op, "promote", force=True)
            assert (await ended(engine, op)).phase == "Healthy"
        assert traffic.failed == []
    async with make(**kept) as engine:
        assert (await engine.predict("m", ROW)).version == "v2"


async def test_the_http_routes_of_a_test_are_answered(make: Make) -> None:
    """The engine's application divides requests too, and says when stable answered instead."""
    async with make(ACTS["raises"]) as engine:
        op = await engine.start_switch("v2", "canary", HALF, model="m", budget_ms=10_000)
        await exposed(engine, op)
        transport = httpx2.ASGITransport(app=engine.asgi())
        answered: Counter[str | None] = Counter()
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            async with asyncio.timeout(60):
                while not answered["error"]:
                    answer = await client.post(
                        "/api/v1/ab/predictions", json={"features": ROW[0], "model": "m"}
                    )
                    assert (answer.status_code, answer.json()["version"]) == (200, "v1")
                    answered[answer.headers.get("x-hotswap-fallback")] += 1
            stable = await client.post("/api/v1/predictions", json={"features": ROW[0]})
        assert (stable.status_code, stable.headers["x-hotswap-version"]) == (200, "v1")
        await engine.abort_switch(op)


async def test_predictions_from_several_loops(make: Make) -> None:
    """Threads with event loops of their own are divided by the same split."""
    async with make() as engine:
        op = await engine.start_switch("v2", "canary", HALF, model="m", budget_ms=10_000)
        await exposed(engine, op)
        answered: Counter[str] = Counter()

        async def ask() -> None:
            until = time.monotonic() + 60
            while len(answered) < 2 and time.monotonic() < until:
                for answer in await asyncio.gather(*(engine.predict("m", ROW) for _ in range(8))):
                    assert answer.values.tolist() == [float(answer.version[1:])]
                    answered[answer.version] += 1

        await asyncio.gather(*(asyncio.to_thread(asyncio.run, ask()) for _ in range(3)))
        assert set(answered) == {"v1", "v2"}
        await engine.abort_switch(op)


async def test_an_isolation_that_is_not_possible(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked for, it is refused with the reason; not asked for, threads do and that is logged."""
    with pytest.raises(ConfigError, match="'process' or 'thread', not 'vm'"):
        Engine(isolation="vm")
    monkeypatch.setattr(engine_wiring, "no_processes", lambda: "this is a test")
    with pytest.raises(ConfigError, match="this is a test"):
        Engine(isolation="process")
    async with make(source=PIDS) as engine:
        op = await engine.start_switch("v2", "canary", HALF, model="m", budget_ms=10_000)
        await exposed(engine, op)
        candidate = await engine.predict("m", ROW, arm="candidate")
        assert int(candidate.values[0]) == os.getpid()
        await engine.abort_switch(op)
    assert "candidates of rollouts run within this process" in caplog.text
