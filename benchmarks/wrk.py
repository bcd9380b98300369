"""Closed loop: wrk sends the next request when the last was answered. For capacity."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from benchmarks.paths import HERE


class WrkMissing(Exception):
    """wrk is not installed; the message says how to install it."""


class Closed(msgspec.Struct, frozen=True):
    """What one run of wrk saw. Latencies in milliseconds, over all answers."""

    rps: float
    requests: int
    errors: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def parse(output: str) -> Closed:
    """The last line of wrk's output that is our JSON; failed statuses count as errors."""
    line = next(line for line in reversed(output.splitlines()) if line.startswith("{"))
    seen = json.loads(line)
    return Closed(
        rps=(seen["requests"] - seen["status_errors"]) / seen["seconds"],
        requests=seen["requests"],
        errors=seen["errors"] + seen["status_errors"],
        p50_ms=seen["p50_ms"],
        p90_ms=seen["p90_ms"],
        p99_ms=seen["p99_ms"],
        max_ms=seen["max_ms"],
    )


def run(
    url: str,
    body: Path,
    *,
    connections: int,
    seconds: float,
    warmup: float = 1.0,
    headers: dict[str, str] | None = None,
) -> Closed:
    """Warm up, then measure. ``headers``: CONTENT_TYPE and HEADER_LENGTH for the script."""
    if shutil.which("wrk") is None:
        raise WrkMissing("wrk is not installed: apt-get install wrk")
    env = os.environ | {"BODY": str(body)} | (headers or {})
    if warmup > 0:
        _wrk(url, connections, warmup, env)
    return parse(_wrk(url, connections, seconds, env))


def _wrk(url: str, connections: int, seconds: float, env: dict[str, str]) -> str:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
    command += ["-s", str(HERE / "wrk.lua"), url]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
