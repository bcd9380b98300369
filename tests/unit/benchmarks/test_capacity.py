"""Comparing servers: the best setting of each, medians, and what is left out with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import artifacts, catalogue, wrk
from benchmarks.environments import NotInstalled
from benchmarks.groups import capacity, switching
from benchmarks.options import Options
from benchmarks.processes import ServerFailed
from benchmarks.served import Served
from benchmarks.wrk import Closed

SPEED = {"slow": (100.0, 5.0), "strong": (900.0, 9.0), "nimble": (300.0, 1.0)}


def served(name: str, setting: str) -> Served:
    """A contestant that needs no process; its port tells the fake wrk who it is."""
    return Served(name, setting, [], list(SPEED).index(setting), "/", "features", None)


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is started; wrk says what `SPEED` says."""

    @contextmanager
    def run(self: Served) -> Iterator[None]:
        yield

    def measure(url: str, body: Path, **_: Any) -> Closed:
        rps, p50 = list(SPEED.values())[int(url.rsplit(":", 1)[1].strip("/"))]
        return Closed(rps, 1, 0, p50, p50, p50, p50)

    monkeypatch.setattr(Served, "run", run)
    monkeypatch.setattr(wrk, "run", measure)
    monkeypatch.setattr(capacity, "CACHE", tmp_path)


def compare(
    monkeypatch: pytest.MonkeyPatch, peers: dict[str, Any], rounds: bool = False
) -> dict[str, Any]:
    monkeypatch.setattr(capacity, "ours", lambda onnx, counts: [served("hotswap", "slow")])
    monkeypatch.setattr(capacity, "PEERS", peers)
    options = Options(quick=not rounds, peers=list(peers), say=lambda _: None)
    return capacity.compare(options, onnx=False)


def test_each_server_runs_at_its_best_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most requests/s at 32 connections, the shortest p50 at one: they may differ."""
    settings = [served("peer", name) for name in SPEED]
    seen = compare(monkeypatch, {"peer": lambda onnx: settings})["servers"]["peer"]
    assert (seen["32"]["setting"], seen["32"]["rps"]) == ("strong", 900.0)
    assert (seen["1"]["setting"], seen["1"]["p50_ms"]) == ("nimble", 1.0)


def test_every_round_measures_every_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds are interleaved, and all of them are kept."""
    seen = compare(monkeypatch, {"peer": lambda onnx: [served("peer", "slow")]}, rounds=True)
    for server in seen["servers"].values():
        assert all(len(server[c]["rounds"]) == 3 for c in ("1", "32"))


@pytest.mark.parametrize(
    "problem", [NotInstalled("peer could not be installed: no wheel"), ServerFailed("no")]
)
def test_a_peer_that_cannot_run_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    """It is never silently dropped."""

    def make(onnx: bool) -> list[Served]:
        raise problem

    seen = compare(monkeypatch, {"peer": make})
    assert seen["missing"] == {"peer": str(problem)}
    assert list(seen["servers"]) == ["hotswap"]


def test_a_setting_that_does_not_start_is_kept_as_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others are measured; what went wrong is in the result."""

    @contextmanager
    def run(self: Served) -> Iterator[None]:
        if self.setting == "slow":
            raise ServerFailed("slow did not start")
        yield

    monkeypatch.setattr(Served, "run", run)
    monkeypatch.setattr(capacity, "ours", lambda onnx, counts: [served("hotswap", "strong")])
    settings = [served("peer", "slow"), served("peer", "nimble")]
    monkeypatch.setattr(capacity, "PEERS", {"peer": lambda onnx: settings})
    seen = capacity.compare(Options(True, ["peer"], say=lambda _: None), onnx=False)
    assert seen["tuning"]["peer"][0]["problem"] == "slow did not start"
    assert seen["servers"]["peer"]["32"]["setting"] == "nimble"


def test_medians_are_over_rounds() -> None:
    """One bad round does not decide."""
    assert capacity.medians([{"rps": 1.0}, {"rps": 9.0}, {"rps": 2.0}]) == {"rps": 2.0}


def test_every_peer_of_the_catalogue_has_pins() -> None:
    """Each has requirements with exact versions, but for nginx, which the distribution has."""
    folder = catalogue.APPS / "requirements"
    for name in catalogue.PEERS:
        if name == catalogue.FLOOR:
            continue
        lines = (folder / f"{name}.txt").read_text().split()
        assert lines
        assert all("==" in line for line in lines)
        assert "scikit-learn==" in " ".join(lines)


def test_all_protocols_carry_the_same_row() -> None:
    """The same numbers for everyone."""
    row = [1.0, 2.0, 3.0]
    bodies = artifacts.bodies([row])
    assert bodies["features"]["features"] == row
    assert bodies["bento"]["features"] == [row]
    assert bodies["mlflow"]["dataframe_split"]["data"] == [row]
    for name in ("v2", "v2_fp32", "v2_both", "mlserver"):
        assert bodies[name]["inputs"][0]["data"] == row
        assert bodies[name]["inputs"][0]["shape"] == [1, 3]


def test_pairs_are_concluded_by_medians_of_ratios() -> None:
    """Failures are summed over idle and busy windows; the ratio is the median pair's."""

    def pair(idle: float, busy: float, failed: int) -> dict[str, Any]:
        return {
            "idle": {"p50_ms": 1.0, "p99_ms": idle, "failures": 0},
            "switching": {"p50_ms": 1.0, "p99_ms": busy, "failures": failed},
            "switches": [{"flip_ms": 0.5}],
            "stale_answers": 0,
        }

    seen = switching.conclude([pair(1, 1, 0), pair(1, 5, 2), pair(2, 2.2, 0)])
    assert seen["p99_ratio"] == pytest.approx(1.1)
    assert (seen["failed"], seen["switches"], seen["flip_p50_ms"]) == (2, 3, 0.5)
