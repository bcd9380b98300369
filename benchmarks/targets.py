"""What hotswap promises to cost, and whether a run kept it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.catalogue import FLOOR

#: Results as `python -m benchmarks` writes them: group name to what the group saw.
Groups = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """One promise. ``read`` takes the figure from what ``group`` saw; KeyError: it has none."""

    group: str
    title: str
    unit: str
    limit: float
    at_most: bool
    read: Callable[[dict[str, Any]], float]
    #: A promise about the whole run (such as 200 switches) that a quick run cannot keep.
    full_only: bool = False


@dataclass(frozen=True)
class Verdict:
    """``passed`` None: not measured in this run, with ``why``."""

    target: Target
    value: float | None
    passed: bool | None
    why: str = ""

    @property
    def word(self) -> str:
        """pass, FAIL or not measured."""
        return {True: "pass", False: "FAIL", None: "not measured"}[self.passed]


def peers_of(group: dict[str, Any]) -> dict[str, Any]:
    """The servers of a capacity group that are neither ours nor the floor."""
    return {k: v for k, v in group["servers"].items() if k not in ("hotswap", FLOOR)}


def best_peer(group: dict[str, Any], connections: str, figure: str, best: Any) -> tuple[str, float]:
    """The peer with the best median of ``figure`` and that median. KeyError without peers."""
    figures = {name: seen[connections][figure] for name, seen in peers_of(group).items()}
    if not figures:
        raise KeyError("no peer was measured")
    name = best(figures, key=figures.__getitem__)
    return name, figures[name]


def _throughput(group: dict[str, Any]) -> float:
    mine: float = group["servers"]["hotswap"]["32"]["rps"]
    return mine / best_peer(group, "32", "rps", max)[1]


def _latency(group: dict[str, Any]) -> float:
    mine: float = group["servers"]["hotswap"]["1"]["p50_ms"]
    return mine / best_peer(group, "1", "p50_ms", min)[1]


def _at(*keys: str) -> Callable[[dict[str, Any]], float]:
    def read(group: dict[str, Any]) -> float:
        found: Any = group
        for key in keys:
            found = found[key]
        if found is None:
            raise KeyError("nothing was counted")
        return float(found)

    return read


TARGETS = (
    Target("sklearn", "scikit-learn, 32 connections, requests/s against the best peer", "×", 2.0, False, _throughput),
    Target("onnx", "ONNX, 32 connections, requests/s against the best peer", "×", 2.5, False, _throughput),
    Target("sklearn", "scikit-learn, one connection, p50 against the best peer", "×", 0.75, True, _latency),
    Target("switching", "switches under load: requests failed", "", 0, True, _at("failed")),
    Target("switching", "switches under load: answers by the old version after a switch returned", "", 0, True, _at("stale_answers")),
    Target("switching", "switches under load: p99 against idle", "×", 1.1, True, _at("p99_ratio")),
    Target("switching", "flip (median)", "ms", 1.0, True, _at("flip_p50_ms")),
    Target("loading", "loading a 2 s model beside traffic: p99 against idle", "×", 1.2, True, _at("p99_ratio")),
    Target("loading", "loading a 2 s model beside traffic: requests failed", "", 0, True, _at("failed")),
    Target("request", "choose + lease + tally on one request", "µs", 15.0, True, _at("median_us")),
    Target("recording", "records on against off: requests/s at 32 connections", "×", 0.95, False, _at("rps_ratio")),
    Target("recording", "records on against off: p99 at half the capacity", "×", 1.05, True, _at("p99_ratio")),
    Target("ready", "switch of a small cold model until it answers (median)", "ms", 150.0, True, _at("ready_ms")),
    Target("ready", "first live request after a switch against steady p50 (median)", "×", 2.0, True, _at("first_ratio")),
    Target("memory", "unshared memory of a loaded version beyond its artifact, scikit-learn", "MiB", 15.0, True, _at("skops", "beyond_artifact_mib")),
    Target("memory", "unshared memory of a loaded version beyond its artifact, ONNX", "MiB", 15.0, True, _at("onnx", "beyond_artifact_mib")),
    Target("swaps", "200 swap cycles of a 100 MB model: growth of memory", "", 0.10, True, _at("growth"), full_only=True),
    Target("overload", "3 × load: goodput against peak", "×", 0.9, False, _at("goodput_ratio")),
    Target("overload", "3 × load: time to refuse (median)", "ms", 5.0, True, _at("refusal_p50_ms")),
)  # fmt: skip


def verdicts(groups: Groups, *, quick: bool = False) -> list[Verdict]:
    """Every promise, with the figure of this run or the reason that there is none."""
    found = []
    for target in TARGETS:
        if quick and target.full_only:
            found.append(Verdict(target, None, None, "needs a full run"))
            continue
        group = groups.get(target.group, {"problem": "its group was not run"})
        try:
            if "problem" in group:
                raise KeyError(group["problem"])
            value = target.read(group)
        except KeyError as missing:
            found.append(Verdict(target, None, None, str(missing.args[0])))
            continue
        passed = value <= target.limit if target.at_most else value >= target.limit
        found.append(Verdict(target, value, bool(passed)))
    return found
