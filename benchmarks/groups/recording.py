"""What it costs to keep records: two servers, measured in turns, one of which keeps none."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import artifacts, processes, wrk
from benchmarks.openloop import Running
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap
from benchmarks.served import Served

KINDS = ("on", "off")


def measure(options: Options) -> dict[str, Any]:
    """Requests/s at 32 connections, and the p99 at half of that, with records and without."""
    models = artifacts.folder(WORK / "models-recording", {"bench": {"v1": "lr.skops"}})
    servers = {kind: Hotswap(models, "--records", kind, name=f"records-{kind}") for kind in KINDS}
    served = {kind: server.served("default") for kind, server in servers.items()}
    closed: dict[str, list[float]] = {kind: [] for kind in KINDS}
    pairs: list[dict[str, Any]] = []
    with servers["on"].run(), servers["off"].run():
        for number in range(options.pick(15, 3)):
            for kind in turn(number):
                seen = wrk.run(served[kind].url, served[kind].body, connections=32,
                               seconds=options.seconds, warmup=1)  # fmt: skip
                closed[kind].append(seen.rps)
            on, off = closed["on"][-1], closed["off"][-1]
            options.say(f"round {number + 1}: {on:,.0f}/s with records, {off:,.0f}/s without")
        rate = 0.5 * statistics.median(closed["off"])
        for number in range(options.pick(11, 2)):
            pair = {
                kind: window(options, servers[kind], served[kind], rate) for kind in turn(number)
            }
            pairs.append(pair)
            options.say(
                f"pair {number + 1}: p99 {pair['on']['p99_ms']:.2f} ms with records, "
                f"{pair['off']['p99_ms']:.2f} ms without; "
                f"{pair['on']['processor_us']:.0f} and {pair['off']['processor_us']:.0f} us of processor "
                "time a request"
            )
        time.sleep(2.0)  # the recorder publishes what it has written a few times a second
        kept = written(servers["on"])
    return {
        "closed": closed,
        "pairs": pairs,
        "rate": rate,
        "rps_ratio": statistics.median(
            a / b for a, b in zip(closed["on"], closed["off"], strict=True)
        ),
        "p99_ratio": statistics.median(
            each["on"]["p99_ms"] / each["off"]["p99_ms"] for each in pairs
        ),
        "p50_ratio": statistics.median(
            each["on"]["p50_ms"] / each["off"]["p50_ms"] for each in pairs
        ),
        "on_p99_ms": statistics.median(each["on"]["p99_ms"] for each in pairs),
        "off_p99_ms": statistics.median(each["off"]["p99_ms"] for each in pairs),
        "processor_us": {
            kind: statistics.median(each[kind]["processor_us"] for each in pairs) for kind in KINDS
        },
        "processor_ratio": statistics.median(
            each["on"]["processor_us"] / each["off"]["processor_us"] for each in pairs
        ),
        "recorder_us": statistics.median(each["on"]["by_process"]["recorder"] for each in pairs),
        "failed": sum(each[kind]["failures"] for each in pairs for kind in KINDS),
        **kept,
    }


def turn(number: int) -> tuple[str, ...]:
    """Who comes first changes, so that drift of the machine meets both alike."""
    return KINDS if number % 2 == 0 else KINDS[::-1]


def window(options: Options, server: Hotswap, served: Served, rate: float) -> dict[str, Any]:
    """One open-loop window, with the processor time that the server took for each request."""
    seconds = options.pick(8.0, 3.0)
    before = processes.processor_seconds(server.pid)
    trace = Running(server.port, served.path, served.body, rate=rate, seconds=seconds).result()
    after = processes.processor_seconds(server.pid)
    seen = trace.summary()
    by_process = {
        name: (total - before.get(name, 0.0)) / seen["requests"] * 1e6
        for name, total in after.items()
    }
    return seen | {"by_process": by_process, "processor_us": sum(by_process.values())}


def written(server: Hotswap) -> dict[str, Any]:
    """What became of the records of this server, by its own information."""
    info = server.control("GET", "/info").get("records", {})
    files = [path for path in Path(server.state, "records").rglob("*") if path.is_file()]
    return {"records": json.loads(json.dumps(info)), "bytes": sum(p.stat().st_size for p in files)}
