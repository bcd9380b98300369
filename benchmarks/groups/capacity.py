"""Capacity and latency of one row a request, side by side with peers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import artifacts, machine, wrk
from benchmarks.catalogue import FLOOR, PEERS
from benchmarks.environments import NotInstalled
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap
from benchmarks.paths import CACHE
from benchmarks.processes import ServerFailed
from benchmarks.served import Served

CONNECTIONS = (1, 32)


def sklearn(options: Options) -> dict[str, Any]:
    """The breast-cancer pipeline itself."""
    return compare(options, onnx=False)


def onnx(options: Options) -> dict[str, Any]:
    """The same pipeline converted to ONNX."""
    return compare(options, onnx=True)


def ours(onnx: bool, counts: Sequence[int]) -> list[Served]:
    """hotswap with these counts of workers, and a second version registered beside the first."""
    suffix = "onnx" if onnx else "skops"
    models = artifacts.folder(
        WORK / f"models-{suffix}", {"bench": {"v1": f"lr2.{suffix}", "v2": f"lr.{suffix}"}}
    )
    protocol = "v2_fp32" if onnx else "v2"
    return [
        Hotswap(models, name=f"hotswap-{suffix}-{n}", workers=n).served(f"{n} workers", protocol)
        for n in counts
    ]


def compare(options: Options, *, onnx: bool) -> dict[str, Any]:
    """Tune, then measure every contestant once a round, so that noise meets all alike."""
    counts = (1,) if options.quick else (1, 2)
    makers: dict[str, Callable[[bool], list[Served]]] = {"hotswap": lambda onnx: ours(onnx, counts)}
    makers |= {name: PEERS[name] for name in options.peers}
    missing: dict[str, str] = {}
    best: dict[str, dict[int, Served]] = {}
    tuning: dict[str, Any] = {}
    for name, make in makers.items():
        try:
            best[name], tuning[name] = tuned(options, name, make(onnx), onnx)
        except (NotInstalled, ServerFailed) as problem:
            missing[name] = str(problem)
            options.say(f"{name} is left out: {problem}")
    servers: dict[str, dict[str, Any]] = {
        name: {str(c): {"setting": chosen[c].setting, "rounds": []} for c in CONNECTIONS}
        for name, chosen in best.items()
    }
    for number in range(options.rounds):
        for name, chosen in best.items():
            for c, seen in one_round(options, chosen).items():
                servers[name][str(c)]["rounds"].append(msgspec.to_builtins(seen))
                options.say(
                    f"round {number + 1} {name}, {c} connections ({chosen[c].setting}): "
                    f"{seen.rps:,.0f}/s, p50 {seen.p50_ms:.2f} ms, p99 {seen.p99_ms:.2f} ms"
                )
    for by_connections in servers.values():
        for row in by_connections.values():
            row |= medians(row["rounds"])
    return {"servers": servers, "missing": missing, "tuning": tuning, "floor": FLOOR}


def one_round(options: Options, chosen: dict[int, Served]) -> dict[int, wrk.Closed]:
    """Each number of connections, on its own best setting; one start if it is the same."""
    seen = {}
    for setting in dict.fromkeys(served.setting for served in chosen.values()):
        counts = [c for c in CONNECTIONS if chosen[c].setting == setting]
        served = chosen[counts[0]]
        with served.run():
            for c in counts:
                seen[c] = wrk.run(served.url, served.body, connections=c, seconds=options.seconds)
    return seen


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of every figure over the rounds."""
    return {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}


def tuned(
    options: Options, name: str, settings: list[Served], onnx: bool
) -> tuple[dict[int, Served], list[dict[str, Any]]]:
    """The best setting for each number of connections, and what every setting reached.

    Peers' results are kept in the cache for their versions; ours are measured anew each time.
    Raises ServerFailed if no setting runs.
    """
    kept = _Kept(CACHE / "tuning.json")
    key = f"{name} {'onnx' if onnx else 'sklearn'} {machine.facts()['cores']} cores"
    key += f" {machine.versions().get(name, '')}"
    seen: list[dict[str, Any]] = []
    if name != "hotswap" and not options.retune:
        seen = kept.get(key)
        if {each["setting"] for each in seen} != {each.setting for each in settings}:
            seen = []
    if len(settings) == 1:
        return dict.fromkeys(CONNECTIONS, settings[0]), seen
    if not seen:
        options.say(f"tuning {name}: {len(settings)} settings")
        seen = [try_setting(served) for served in settings]
    working = [each for each in seen if "problem" not in each]
    if len(working) == len(seen):  # what failed is tried again the next time
        kept.put(key, seen)
    if not working:
        raise ServerFailed(seen[0]["problem"])
    by_name = {served.setting: served for served in settings}
    fastest = min(working, key=lambda each: each["1"]["p50_ms"])
    strongest = max(working, key=lambda each: each["32"]["rps"])
    return {1: by_name[fastest["setting"]], 32: by_name[strongest["setting"]]}, seen


def try_setting(served: Served) -> dict[str, Any]:
    """What a short run of one setting reaches, or the problem that it has."""
    found: dict[str, Any] = {"setting": served.setting}
    try:
        with served.run():
            for c in CONNECTIONS:
                result = wrk.run(served.url, served.body, connections=c, seconds=2, warmup=1)
                found[str(c)] = msgspec.to_builtins(result)
    except ServerFailed as problem:
        found["problem"] = str(problem)
    return found


class _Kept:
    """Results of tuning, in one JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._all().get(key, [])
        return found

    def put(self, key: str, value: list[dict[str, Any]]) -> None:
        self.path.write_text(json.dumps(self._all() | {key: value}, indent=1))

    def _all(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found
