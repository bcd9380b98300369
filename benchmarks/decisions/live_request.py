"""What choosing an arm, holding it, deciding the outcome and counting it cost on one request."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import Options


def measure(options: Options) -> dict[str, Any]:
    """Processor microseconds a request under a split, without parsing, encoding and the host."""
    rounds = asyncio.run(_rounds(options.pick(9, 3), options.pick(50_000, 5_000)))
    return {"microseconds": rounds, "median_us": statistics.median(rounds)}


async def _rounds(rounds: int, times: int) -> list[float]:
    from hotswap.core.routing import HostRef, RouteTable, Split, VersionEntry
    from hotswap.core.signature import Signature, TensorSpec
    from hotswap.ipc.words import HEALTH_WORDS, MODELS, Epoch, Health, Words
    from hotswap.serving.link import Outputs, Pending, Reply
    from hotswap.serving.plane import WorkerPlane

    values = np.zeros(1, dtype=np.int64)

    class Answered:
        """A host that has answered before it was asked."""

        outstanding_rows = 0

        def __init__(self) -> None:
            self.connected = asyncio.Event()
            self.connected.set()

        def call(self, pending: Pending) -> int:
            outputs = Outputs(1)  # anew each time: its checks belong to the cost
            outputs.append(("predict", values))
            pending.future.set_result(Reply(outputs, 0, 1, 1000, 1000))
            return 0

        def cancel(self, number: int) -> None:
            """There is nothing to be withdrawn."""

        def close(self) -> None:
            """Nothing is open."""

    link = Answered()

    class Plane(WorkerPlane):
        """The plane itself, but for the way to the host."""

        def room(self, *_: Any) -> Any:
            return link

        def encode(self, *_: Any) -> Any:
            return (), []

    epoch = Epoch(Words.create("bench-split", MODELS))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tables", "tally"):
            (Path(folder) / name).mkdir()
        plane = Plane(
            runtime_dir=folder, slot=0, workers=1, queue_rows=4096, readiness="stable",
            epoch=epoch, health=Health(Words.create("bench-split-health", HEALTH_WORDS)),
            tally="bench", wall_ms=0, on_ack=lambda *_: None, on_drained=lambda *_: None,
            on_wanted=lambda *_: None,
        )  # fmt: skip
        refs = {name: HostRef(name, name, at) for at, name in enumerate(("v1", "v2", "twin"))}
        entries = tuple(VersionEntry(v, "sklearn", "READY", hosts=(refs[v],)) for v in ("v1", "v2"))
        signature = Signature(
            (TensorSpec("x", "FP64", (-1, 30)),), (TensorSpec("predict", "INT64", (-1,)),)
        )
        split = Split(
            "t.1", 1, "v2", "v1", weight=1_000, salt="s", budget_ms=1_000.0,
            twin=(refs["twin"],), twin_weight=1_000,
        )  # fmt: skip
        epoch.commit(1, 1)
        plane.install(RouteTable("bench", 1, 1, "v1", signature, entries, split))
        arms = [arm for route in plane.routes.values() for arm in route.arms.values()]
        divisions = [r.division for r in plane.routes.values() if r.division is not None]
        arms += [arm for division in divisions for arm in division.arms]
        for own in {id(each): each for arm in arms for each in arm.links}.values():
            own.close()
        for arm in arms:
            arm.links = [link]  # type: ignore[list-item]
        inputs = {"x": np.zeros((1, 30))}
        found = []
        for _ in range(rounds):
            begin = time.process_time()
            for _ in range(times):
                lease = plane.lease("bench", None, None)
                try:
                    await lease.predict(inputs, ("predict",), 1, time.monotonic() + 5.0, "")
                finally:
                    lease.release()
            plane.report()
            found.append((time.process_time() - begin) / times * 1e6)
    return found
