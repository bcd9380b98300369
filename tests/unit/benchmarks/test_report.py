"""The benchmarks' page and verdicts: honest about what failed and what was not measured."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from benchmarks.__main__ import names
from benchmarks.report import figure, markdown
from benchmarks.targets import TARGETS, best_peer, verdicts
from benchmarks.wrk import parse


def server(rps: float, p50: float) -> dict[str, Any]:
    """What one contestant saw, the same in both numbers of connections."""
    seen = {"rps": rps, "p50_ms": p50, "p90_ms": p50, "p99_ms": 2 * p50, "max_ms": p50, "errors": 0}
    return {c: {"setting": "best", "rounds": [seen], **seen} for c in ("1", "32")}


def pair(idle: float, busy: float, kind: str) -> dict[str, Any]:
    seen = {"p50_ms": 1.0, "lag_p99_ms": 0.1, "failures": 0}
    return {"idle": seen | {"p99_ms": idle}, kind: seen | {"p99_ms": busy}}


CAPACITY = {
    "servers": {
        "hotswap": server(20000, 0.4),
        "mosec": server(9000, 2.9),
        "fastapi": server(1500, 0.6),
        "nginx": server(150000, 0.05),
    },
    "missing": {"ray": "ray could not be installed: no wheel\nmore"},
    "tuning": {},
    "floor": "nginx",
}
RESULT: dict[str, Any] = {
    "started": "2030-01-01 00:00 UTC",
    "quick": False,
    "command": [],
    "machine": {
        "cpu": "a processor",
        "cores": 2,
        "memory_gib": 8,
        "system": "Linux",
        "python": "3.11",
        "commit": "abc",
        "load_average": [0.1, 0.1, 0.1],
    },
    "versions": {"mosec": "mosec==1"},
    "groups": {
        "sklearn": CAPACITY,
        "switching": {
            "pairs": [pair(2.0, 2.5, "switching")],
            "switches": 200,
            "rate": 10000.0,
            "failed": 0,
            "stale_answers": 0,
            "p99_ratio": 1.25,
            "idle_p99_ms": 2.0,
            "switching_p99_ms": 2.5,
            "flip_p50_ms": 0.3,
            "flip_p99_ms": 0.9,
            "flip_max_ms": 1.4,
        },
        "swaps": {
            "cycles": 200,
            "megabytes": 100,
            "before_mib": 300.0,
            "after_mib": 315.0,
            "growth": 0.05,
        },
        "memory": {
            "skops": {
                "versions": [{"processes": 1, "private_mib": 11.8, "shown_mib": 11.4}],
                "artifact_mib": 0.02,
                "beyond_artifact_mib": 11.78,
            },
            "took_seconds": 9.1,
            "commit": "abc",
        },
        "onnx": {"problem": "hotswap did not start: no such file"},
    },
}


def verdict_of(title: str, groups: dict[str, Any], quick: bool = False) -> Any:
    return next(
        each for each in verdicts(groups, quick=quick) if each.target.title.startswith(title)
    )


def test_the_best_peer_is_neither_ours_nor_the_floor() -> None:
    """nginx predicts nothing, so nobody is compared with it."""
    assert best_peer(CAPACITY, "32", "rps", max) == ("mosec", 9000)
    assert best_peer(CAPACITY, "1", "p50_ms", min) == ("fastapi", 0.6)


def test_targets_pass_and_fail_by_their_limits() -> None:
    """A ratio above 2 passes, a p99 of 1.25 x idle does not."""
    groups = RESULT["groups"]
    throughput = verdict_of("scikit-learn, 32", groups)
    assert throughput.passed
    assert throughput.value == pytest.approx(20000 / 9000)
    assert verdict_of("switches under load: p99", groups).word == "FAIL"
    assert verdict_of("switches under load: requests failed", groups).word == "pass"


def test_one_failed_request_fails_its_target() -> None:
    """Nothing is rounded in our favour."""
    groups = copy.deepcopy(RESULT["groups"])
    groups["switching"]["failed"] = 1
    assert verdict_of("switches under load: requests failed", groups).word == "FAIL"


def test_what_was_not_measured_never_passes() -> None:
    """A missing group, a group with a problem, no peers, and a quick run: all say so."""
    assert {each.word for each in verdicts({})} == {"not measured"}
    onnx = verdict_of("ONNX, 32", RESULT["groups"])
    assert (onnx.passed, onnx.why) == (None, "hotswap did not start: no such file")
    assert verdict_of("flip", {}).why == "its group was not run"
    alone = {"sklearn": {**CAPACITY, "servers": {"hotswap": server(1, 1), "nginx": server(1, 1)}}}
    assert "no peer" in verdict_of("scikit-learn, 32", alone).why
    assert verdict_of("200 swap cycles", RESULT["groups"], quick=True).why == "needs a full run"


def test_the_page_states_targets_peers_and_what_is_missing() -> None:
    """Every target is on the page; failures and missing peers are named."""
    page = markdown(RESULT)
    for target in TARGETS:
        assert target.title in page
    assert "| FAIL |" in page
    assert "≤ 1.10 ×" in page
    assert "Not measured: ray: ray could not be installed: no wheel" in page
    assert "- onnx: hotswap did not start: no such file" in page
    assert "2.22 × the requests/s of mosec" in page
    assert "| ≤ 10% | 5.0% | pass |" in page
    assert "200 switches between two warm versions" in page
    assert "| skops | 0.02 MiB | 11.8 MiB | 11.8 | 11.4 |" in page


def test_a_merged_result_says_so() -> None:
    """Groups of several runs are not passed off as one run."""
    assert "Not all groups are of one run" in markdown(RESULT | {"command": ["--into", "x.json"]})
    assert "Not all groups are of one run" not in markdown(RESULT)


def test_a_disturbed_run_says_so() -> None:
    """If others were computing meanwhile, the reader is told."""
    groups = copy.deepcopy(RESULT["groups"])
    groups["sklearn"]["others_cores"] = 0.05
    assert "disturbed" not in markdown(RESULT | {"groups": groups})
    groups["sklearn"]["others_cores"] = 0.8
    assert "other processes used up to 0.8 cores" in markdown(RESULT | {"groups": groups})


def test_the_picture_is_linked_if_there_is_one() -> None:
    """As the page is told to link it."""
    assert "(_static/benchmarks.svg)" in markdown(RESULT, "_static/benchmarks.svg")
    assert "![" not in markdown(RESULT)


def test_a_quick_run_says_so() -> None:
    """The page does not pass a short run off as a full one."""
    assert "quick run" in markdown(RESULT | {"quick": True})
    assert "quick run" not in markdown(RESULT)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(None, "ms", "–"), (0, "", "0"), (0.4219, "ms", "0.42 ms"), (12.34, "µs", "12.3 µs"), (0.0023, "ms", "2.30 µs"), (20400.4, "", "20,400"), (250.6, "ms", "251 ms")],
)  # fmt: skip
def test_figures_are_rounded_for_people(value: float | None, unit: str, text: str) -> None:
    """Three digits that mean something."""
    assert figure(value, unit) == text


def test_wrk_failures_are_no_throughput() -> None:
    """Answers with an error status count as errors, not as requests/s."""
    line = '{"requests": 1000, "seconds": 2.0, "errors": 1, "status_errors": 200, "p50_ms": 1, "p90_ms": 2, "p99_ms": 3, "max_ms": 4}'
    seen = parse(f"Running 2s test\n{line}\n")
    assert (seen.rps, seen.errors, seen.p99_ms) == (400.0, 201, 3)


def test_an_unknown_group_is_refused_with_the_known_ones() -> None:
    """A misspelt name measures nothing silently."""
    assert names("a, b", ["a", "b"], "group") == ["a", "b"]
    with pytest.raises(SystemExit, match="there is no group 'c'; there are: a, b"):
        names("c", ["a", "b"], "group")
