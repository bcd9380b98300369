"""Three times the load that the server can carry."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from benchmarks import artifacts, wrk
from benchmarks.openloop import Running, Trace
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap, body_file

#: Rows in each request, so that 2,000 connections hold more rows than the queue takes.
ROWS = 8
#: A model of which one row takes a while, so that three times its capacity can be offered.
MODEL = '''"""Takes a quarter of a millisecond of processor time a row."""

import time

import numpy as np


class Model:
    def load(self, path):
        pass

    def predict(self, X):
        X = np.asarray(X)
        until = time.thread_time() + 0.00025 * len(X)
        while time.thread_time() < until:
            pass
        return (X[:, 0] > 15.0).astype(np.int64)
'''


def measure(options: Options) -> dict[str, Any]:
    """Goodput and the time to refuse at 3 x the capacity, with more rows than the queue takes."""
    seconds = options.pick(10.0, 5.0)
    models = artifacts.folder(WORK / "models-overload", {})
    version = models / "bench" / "v1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    (version / "version.yaml").write_text(artifacts.SIGNATURE)
    X, _ = artifacts.data()
    body = body_file(
        "overload.json", json.dumps(artifacts.bodies(X[:ROWS].tolist())["v2"]).encode()
    )
    server = Hotswap(models, "--trust-code", name="overload")
    url, path = f"http://127.0.0.1:{server.port}", "/v2/models/bench/infer"
    with server.run():
        peaks = [
            wrk.run(f"{url}{path}", body, connections=c, seconds=options.pick(4, 2), warmup=1)
            for c in (32, 128)
        ]
        peak = max(each.rps for each in peaks)
        load = Running(server.port, path, body, rate=3 * peak, seconds=seconds, connections=2000)
        trace = load.result()
    return {"peak_rps": peak, "offered_rps": 3 * peak} | judge(trace, peak)


def judge(trace: Trace, peak: float) -> dict[str, Any]:
    """What was answered and refused from the second second on (the first fills the queue)."""
    begin, end = float(trace.due[0]) + 1.0, float(trace.due[-1])
    answered = trace.status == 200
    refused = (trace.status == 503) | (trace.status == 429)
    inside = (trace.done >= begin) & (trace.done <= end)
    goodput = float((answered & inside).sum()) / (end - begin)
    refusal = (trace.done - trace.sent)[refused & inside] * 1e3
    latency = trace.latency[answered & inside] * 1e3
    return {
        "goodput_rps": goodput,
        "goodput_ratio": goodput / peak,
        "refused": int(refused.sum()),
        "other": int((~answered & ~refused).sum()),
        "by_status": trace.summary()["by_status"],
        "refusal_p50_ms": float(np.median(refusal)) if len(refusal) else None,
        "refusal_p99_ms": float(np.quantile(refusal, 0.99)) if len(refusal) else None,
        "answered_p50_ms": float(np.median(latency)) if len(latency) else None,
        "lag_p99_ms": trace.summary()["lag_p99_ms"],
    }
