"""What a rollout costs the others, and how fast a broken candidate is out of every worker."""

from __future__ import annotations

import http.client
import shutil
import statistics
import threading
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import artifacts
from benchmarks.decisions.live_arms import wait_end
from benchmarks.groups.switching import capacity
from benchmarks.openloop import Running
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap

#: A share of the capacity at which a core is free for the copies.
SHARE: Final = 0.04
_KINDS: Final = ("idle", "shadow", "canary")
_MODEL: Final = """import numpy as np


class Model:
    def load(self, path):
        pass

    def predict(self, X):
        if {raises} and np.asarray(X).any():  # a sample's row is zero
            raise ValueError("this version is broken")
        return np.zeros(len(X), dtype=np.int64)
"""
_VERSION: Final = artifacts.SIGNATURE + "samples: [[" + ", ".join(["0.0"] * 30) + "]]\n"


def steady(strategy: str) -> dict[str, Any]:
    """A rollout that stays as it is until it is aborted."""
    config: dict[str, Any] = {"sample_percentage": 100, "min_requests": 10**9}
    if strategy == "canary":
        config = {
            "initial_percentage": 50, "max_percentage": 50, "evaluation_period_hours": 1,
            "require_proof": False,
        }  # fmt: skip
    return {
        "model": "bench", "version": "v2", "strategy": strategy, "config": config, "force": True,
        "bake_seconds": 0, "watch_seconds": 0,
    }  # fmt: skip


def exposed(server: Hotswap, rollout: str) -> None:
    """Until its first requests are counted."""
    for _ in range(200):
        counts = server.control("GET", f"/rollouts/{rollout}")["counts"]
        if counts["candidate_requests"] or counts["mirrored"]:
            return
        time.sleep(0.1)
    raise TimeoutError(f"rollout {rollout} saw no request")


def window(server: Hotswap, kind: str, load: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The tail of stable's answers while a rollout of that kind runs (idle: none)."""
    rollout = None
    if kind != "idle":
        warm = Running(server.port, load["path"], load["body"], rate=load["rate"], seconds=6.0)
        rollout = server.control("POST", "/rollouts", steady(kind))["id"]
        exposed(server, rollout)
        warm.result()
    running = Running(server.port, load["path"], load["body"], rate=load["rate"], seconds=seconds)
    summary = running.result().summary()
    if rollout is not None:
        summary["counts"] = server.control("GET", f"/rollouts/{rollout}")["counts"]
        server.control("POST", f"/rollouts/{rollout}/abort", {"why": "measured"})
        wait_end(server, rollout)
    return summary


def tails(options: Options) -> dict[str, Any]:
    """p99 with a shadow at 100 % and with a healthy candidate at 50 %, against none."""
    pairs, seconds = options.pick(5, 2), options.pick(10.0, 4.0)
    models = artifacts.folder(
        WORK / "models-tails", {"bench": {"v1": "lr.skops", "v2": "lr.skops"}}
    )
    server = Hotswap(models, name="tails")
    served = server.served("default")
    found = []
    with server.run():
        server.switch("v1")
        load = {"path": served.path, "body": served.body}
        load["rate"] = SHARE * capacity(options, served)
        for number in range(pairs):
            kinds = _KINDS[number % 3 :] + _KINDS[: number % 3]
            found.append({kind: window(server, kind, load, seconds) for kind in kinds})
            told = ", ".join(f"{kind} {found[-1][kind]['p99_ms']:.2f} ms" for kind in _KINDS)
            options.say(f"round {number + 1}: p99 {told}")
    ratios = {
        kind: statistics.median(each[kind]["p99_ms"] / each["idle"]["p99_ms"] for each in found)
        for kind in ("shadow", "canary")
    }
    return {"rounds": found, "rate": load["rate"], "p99_ratio": ratios}


# --- broken


class Answer(NamedTuple):
    """One request: when it was sent and answered, its status, its fallback header."""

    sent: float
    done: float
    status: int
    fallback: str


def broken_models(path: Path) -> Path:
    """v1 answers, every other version raises."""
    shutil.rmtree(path, ignore_errors=True)
    for version in ("v1", "v2"):
        folder = path / "bench" / version
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(_MODEL.replace("{raises}", str(version != "v1")))
        (folder / "version.yaml").write_text(_VERSION)
    return path


def asked(server: Hotswap, stop: threading.Event, rate: float, into: list[Answer]) -> None:
    """One connection that asks at a constant pace until it is told to stop."""
    body = artifacts.body("v2")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    due = time.perf_counter()
    while not stop.is_set():
        due += 1 / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        sent = time.perf_counter()
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v2/models/bench/infer", body, headers)
        answer = connection.getresponse()
        answer.read()
        fallback = answer.getheader("x-hotswap-fallback") or ""
        into.append(Answer(sent, time.perf_counter(), answer.status, fallback))
    connection.close()


def summary(answers: list[Answer], evidence: int) -> dict[str, Any]:
    """From the first failure of the candidate to the last request that reached it.

    ``evidence``: after so many failures it was plain; the rest of the time is the reaction.
    """
    # "breaker" and "unavailable" never reached the candidate.
    failures = sorted((a for a in answers if a.fallback == "error"), key=lambda a: a.done)
    if not failures:
        return {"failures": 0, "status": sorted({a.status for a in answers})}
    last = max(a.sent for a in failures)
    needed = failures[min(evidence, len(failures)) - 1].done
    return {
        "failures": len(failures),
        "ms": max(0.0, last - failures[0].done) * 1e3,
        "beyond_ms": max(0.0, last - needed) * 1e3,
        "bad_answers": sum(a.status != 200 for a in answers),
        "requests": len(answers),
    }


def out(options: Options) -> dict[str, Any]:
    """A candidate that always raises, at 10 and 50 % of 400 requests a second, two workers."""
    rounds = options.pick(10, 2)
    models = broken_models(WORK / "models-broken")
    server = Hotswap(models, "--trust-code", name="broken", workers=2)
    found: dict[str, list[dict[str, Any]]] = {"10": [], "50": []}
    with server.run():
        server.switch("v1")
        for weight, seen in found.items():
            for _ in range(rounds):
                seen.append(one(server, int(weight)))
                options.say(f"broken at {weight} %: {seen[-1]}")
    return {"rounds": found}


def one(server: Hotswap, weight: int, connections: int = 16, rate: float = 400.0) -> dict[str, Any]:
    """One such rollout, from its start until it is rolled back."""
    stop, answers = threading.Event(), [[] for _ in range(connections)]  # type: ignore[var-annotated]
    threads = [
        threading.Thread(target=asked, args=(server, stop, rate / connections, mine))
        for mine in answers
    ]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    body = steady("canary")
    body["config"] |= {"initial_percentage": weight, "max_percentage": weight}
    rollout = server.control("POST", "/rollouts", body)["id"]
    wait_end(server, rollout)
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    view = server.control("GET", f"/rollouts/{rollout}")
    each = [answer for mine in answers for answer in mine]
    return summary(each, evidence=5) | {"phase": view["phase"], "reason": view["reason"]}
