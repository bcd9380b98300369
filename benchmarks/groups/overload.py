"""Three times the load that the server can carry."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import artifacts, wrk
from benchmarks.openloop import Running
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap

#: A model of which one row takes a while, so that three times its capacity can be offered.
MODEL = '''"""Takes about a millisecond of processor time a row."""

import time

import numpy as np


class Model:
    def load(self, path):
        pass

    def predict(self, X):
        X = np.asarray(X)
        until = time.thread_time() + 0.001 * len(X)
        while time.thread_time() < until:
            pass
        return (X[:, 0] > 15.0).astype(np.int64)
'''


def measure(options: Options) -> dict[str, Any]:
    """Goodput and the time to refuse at 3 x the capacity, with more connections than the queue."""
    seconds = options.pick(10.0, 4.0)
    models = artifacts.folder(WORK / "models-overload", {})
    version = models / "bench" / "v1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    (version / "version.yaml").write_text(artifacts.SIGNATURE)
    server = Hotswap(models, "--trust-code", name="overload")
    served = server.served("default")
    with server.run():
        peak = wrk.run(served.url, served.body, connections=32, seconds=seconds / 2, warmup=2)
        load = Running(
            server.port,
            served.path,
            served.body,
            rate=3 * peak.rps,
            seconds=seconds,
            connections=2000,
        )
        trace = load.result()
    # The first second fills the queue; it is overload only from then on.
    steady = trace.between(trace.due[0] + 1.0, trace.due[-1])
    answered = steady.status == 200
    refused = (steady.status == 503) | (steady.status == 429)
    span = float(steady.due[-1] - steady.due[0])
    refusal = (steady.done - steady.sent)[refused] * 1e3
    goodput = float(answered.sum()) / span
    latency = steady.latency[answered] * 1e3
    return {
        "peak_rps": peak.rps,
        "offered_rps": 3 * peak.rps,
        "goodput_rps": goodput,
        "goodput_ratio": goodput / peak.rps,
        "refused": int(refused.sum()),
        "other": int((~answered & ~refused).sum()),
        "by_status": steady.summary()["by_status"],
        "refusal_p50_ms": float(np.median(refusal)) if len(refusal) else None,
        "refusal_p99_ms": float(np.quantile(refusal, 0.99)) if len(refusal) else None,
        "answered_p50_ms": float(np.median(latency)) if len(latency) else None,
        "lag_p99_ms": steady.summary()["lag_p99_ms"],
    }
