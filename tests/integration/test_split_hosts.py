"""A split over real host processes: what a candidate does to itself, no user ever sees."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hotswap.app.hosts import Hosts
from hotswap.core.routing import HostRef, RouteTable, Split, VersionEntry
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.core.windows import ArmCounts, Window
from hotswap.ipc.messages import HostSpec, HostState
from hotswap.ipc.words import HEALTH_WORDS, MODELS, Epoch, Health, Words
from hotswap.server.app import DataApp
from hotswap.server.messages import Answer, Request
from hotswap.serving.plane import WorkerPlane
from hotswap.sources.manifest import build_manifest, digest_of

pytestmark = pytest.mark.integration

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, 2)),), (TensorSpec("predict", "FP64", (-1,)),))
REQUESTS = 200

#: What a candidate does with every row but those of its samples, which are zeros.
HAZARDS = {
    "raises": ("raise ValueError('no')", "error"),
    "exits": ("os._exit(3)", "lost"),
    "aborts": ("os.abort()", "lost"),
    "hangs": ("time.sleep(60)", "timeout"),
    "not_finite": ("return X[:, 0] * float('nan')", "invalid"),
    "too_many_rows": ("return np.concatenate([X[:, 0], X[:, 0]])", "invalid"),
}
MODEL = """
import os, time
import numpy as np
class Model:
    def load(self, path):
        pass
    def predict(self, X{more}):
        if X.any():
            {act}
        return X[:, 0] + X[:, 1]
"""


class Node:
    """Two real hosts, one worker's plane and its HTTP application."""

    def __init__(self, folder: Path, runtime_dir: Path) -> None:
        self.folder = folder
        self.runtime_dir = runtime_dir
        for name in ("tables", "tally"):
            (runtime_dir / name).mkdir()
        self.epoch = Epoch(Words.create("test-epoch", MODELS))
        health = Health(Words.create("test-health", HEALTH_WORDS))
        self.windows: list[Window] = []
        self.tripped: list[str] = []
        self.news = asyncio.Event()
        self.states: dict[str, HostState] = {}
        self.hosts = Hosts(
            health, health.words.fd, str(runtime_dir), self._changed, self._changed, spawn=True
        )
        self.plane = WorkerPlane(
            runtime_dir=str(runtime_dir), slot=0, workers=1, queue_rows=4096, readiness="any",
            epoch=self.epoch, health=health, tally="0.0", wall_ms=1,
            on_ack=lambda index, revision: None, on_drained=lambda index, revision: None,
            on_wanted=lambda model, version: None, worker="w",
            on_counted=self.windows.extend,
            on_tripped=lambda index, test, why, failures: self.tripped.append(why),
        )  # fmt: skip
        self.app = DataApp(self.plane)

    def _changed(self, state: HostState) -> None:
        self.states[state.spec.host] = state
        self.news.set()

    def want(self, slot: int, act: str, more: str = "", hang_seconds: float = 30.0) -> None:
        """Start version ``v<slot>``, which does this with every row but zeros."""
        version = f"v{slot}"
        folder = self.folder / version
        folder.mkdir()
        (folder / "model.py").write_text(MODEL.format(act=act, more=more))
        manifest = build_manifest(folder)
        artifact = Artifact(str(folder), "model.py", "python", digest_of(manifest), manifest)
        settings = VersionSettings(
            signature=SIGNATURE, samples=[[0.0, 0.0], [0.0, 0.0]], hang_seconds=hang_seconds
        )
        self.hosts.want(
            HostSpec(
                host=version, model="m", version=version, instance=0, slot=slot, artifact=artifact,
                settings=settings, public=None, allow_unvalidated=False, load_seconds=60.0,
                runs_code=True,
            )
        )  # fmt: skip

    async def until_ready(self) -> None:
        """Both are warm."""
        async with asyncio.timeout(60):
            while [s.state for s in self.states.values()].count("ready") < 2:
                failed = [s.error for s in self.states.values() if s.state == "failed"]
                assert not failed
                self.news.clear()
                await self.news.wait()

    async def flip(self, split: Split) -> None:
        """A table with this split, in force and connected."""
        entries = tuple(
            VersionEntry(v, "python", "READY", hosts=(HostRef(v, f"h{v}", n),))
            for n, v in ((1, "v1"), (2, "v2"))
        )
        self.epoch.commit(1, 1)
        self.plane.install(RouteTable("m", 1, 1, "v1", SIGNATURE, entries, split))
        async with asyncio.timeout(60):
            for link in self.plane.routes["m"].links():
                await link.connected.wait()

    async def ask(self, one: float) -> Answer:
        """One request over the front end."""
        body = json.dumps({"features": [one, 1.0]}).encode()
        request = Request("POST", "/predict", {}, body, time.monotonic())
        return await self.app.respond(request)

    def arm(self, name: str) -> ArmCounts:
        """An arm's sums, once every window is over."""
        total = ArmCounts()
        for window in self.windows:
            arm = window.arms.get(name, ArmCounts())
            for field in ("requests", "errors", "timeouts", "invalid"):
                setattr(total, field, getattr(total, field) + getattr(arm, field))
        return total

    async def finish(self) -> None:
        """Every request is over: all windows are reported."""
        async with asyncio.timeout(30):
            while self.plane.routes["m"].leases:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        self.windows += self.plane.windows.due(time.monotonic_ns() + 3_600_000_000_000)


@pytest.fixture
async def node(tmp_path: Path, runtime_dir: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path, runtime_dir)
    yield node
    node.hosts.stop_all()
    for route in node.plane.routes.values():
        for link in route.links():
            link.close()
    for host in node.hosts.hosts.values():
        if host.watch is not None:
            host.watch.kill()
    async with asyncio.timeout(30):
        while node.hosts.hosts:
            node.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(node.news.wait(), 0.5)


@pytest.mark.parametrize("hazard", sorted(HAZARDS))
async def test_no_user_sees_what_the_candidate_does(node: Node, hazard: str) -> None:
    """At 20 % of live traffic every request is answered rightly, and each failure is charged."""
    act, reason = HAZARDS[hazard]
    node.want(1, "pass")
    node.want(2, act)
    await node.until_ready()
    await node.flip(Split("t", 1, "v2", "v1", weight=2_000, salt="s", budget_ms=150.0))
    fallbacks: dict[str, int] = {}

    async def client(first: int) -> None:
        for number in range(first, REQUESTS, 8):
            answer = await node.ask(float(number))
            headers = dict(answer.headers)
            assert answer.status == 200
            assert json.loads(answer.body)["prediction"] == number + 1.0
            assert headers[b"x-hotswap-version"] == b"v1"
            if b"x-hotswap-fallback" in headers:
                why = headers[b"x-hotswap-fallback"].decode()
                fallbacks[why] = fallbacks.get(why, 0) + 1

    await asyncio.gather(*(client(first) for first in range(8)))
    await node.finish()
    arm, baseline = node.arm("candidate"), node.arm("baseline")
    assert arm.requests + baseline.requests == REQUESTS
    assert arm.errors + arm.timeouts + arm.invalid == arm.requests == sum(fallbacks.values()) > 0
    assert (baseline.errors, baseline.invalid) == (0, 0)
    assert set(fallbacks) <= {reason, "breaker", "unavailable", "lost", "timeout"}
    assert fallbacks[reason] > 0
    assert fallbacks.get("breaker", 0) > 0
    assert node.tripped == [node.tripped[0]]
    counted: dict[str, int] = {}
    for window in node.windows:
        for why, count in window.fallbacks.items():
            counted[why] = counted.get(why, 0) + count
    assert counted == fallbacks


async def test_a_model_that_asks_is_told_of_copies(node: Node) -> None:
    """``predict(self, X, shadow)``: true for the mirrored request, false for the one answered."""
    node.want(1, "pass")
    node.want(2, "return X[:, 0] + X[:, 1] + (100 if shadow else 0)", more=", shadow=False")
    await node.until_ready()
    split = Split("t", 1, "v2", "v1", weight=5_000, salt="s", budget_ms=5_000.0, mirror=10_000)
    await node.flip(split)
    for number in range(1, 40):
        answer = await node.ask(float(number))
        assert json.loads(answer.body)["prediction"] == number + 1.0
    await node.finish()
    mirrored = node.arm("baseline").requests
    pairs = [window.pairs for window in node.windows if window.pairs is not None]
    assert sum(each.total for each in pairs) == sum(each.both for each in pairs) == mirrored
    assert sum(each.agree for each in pairs) == 0
    assert max(each.largest for each in pairs) == 100.0
    assert node.arm("candidate").requests == 39 - mirrored > 0
