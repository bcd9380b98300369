"""What was seen on running servers, as one table with what was promised."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.decisions.page import markdown


def rows_of(groups: dict[str, Any]) -> list[list[str]]:
    """what, promised, seen, kept."""
    rows: list[list[str]] = []

    def add(what: str, promised: str, seen: str, kept: bool | None) -> None:
        word = "" if kept is None else ("kept" if kept else "**not kept**")
        rows.append([what, promised, seen, word])

    if "arms" in groups:
        arms = groups["arms"]
        add(
            f"the same artifact on both arms, {arms['rollouts']} rollouts through 1, 10 and 50 %: "
            "rolled back for latency",
            "0", str(arms["for_latency"]), arms["for_latency"] == 0,
        )  # fmt: skip
        add("the same, for any reason", "", str(arms["rolled_back"]), None)
        add(
            "the same rollouts judged without the twin: would have been rolled back",
            "", str(arms["without_twin"]), None,
        )  # fmt: skip
        add(
            f"failed requests of {arms['requests']:,} meanwhile",
            "0", str(arms["failures"]), arms["failures"] == 0,
        )  # fmt: skip
    if "tails" in groups:
        ratios = groups["tails"]["p99_ratio"]
        add(
            "p99 with a shadow of 100 %, against none (median of the rounds)",
            "≤ 1.05 ×", f"{ratios['shadow']:.2f} ×", ratios["shadow"] <= 1.05,
        )  # fmt: skip
        add(
            "p99 with a healthy candidate at 50 %, against none",
            "", f"{ratios['canary']:.2f} ×", None,
        )  # fmt: skip
    for weight, rounds in groups.get("broken", {}).get("rounds", {}).items():
        seen = [each for each in rounds if each["failures"]]
        if not seen:
            continue
        beyond = [each["beyond_ms"] for each in seen]
        add(
            f"broken candidate at {weight} %: from its fifth failure to the last request that "
            "reached it, worst of "
            f"{len(seen)}",
            "≤ 300 ms", f"{max(beyond):.0f} ms", max(beyond) <= 300,
        )  # fmt: skip
        whole = statistics.median(each["ms"] for each in seen)
        reached = statistics.median(each["failures"] for each in seen)
        bad = sum(each["bad_answers"] for each in seen)
        add("the same from its first failure, median", "", f"{whole:.0f} ms", None)
        add("candidate requests that failed, median", "", f"{reached:.0f}", None)
        add("failed answers that users saw", "0", str(bad), bad == 0)
    if "request" in groups:
        cost = groups["request"]["median_us"]
        add("choose + lease + outcome + tally under a split", "≤ 15 µs", f"{cost:.1f} µs", cost <= 15)  # fmt: skip
    return rows


def p50_of(arms: dict[str, Any]) -> list[list[str]]:
    """The median over rollouts of each arm's p50."""
    rows = []
    for weight in ("1.0", "10.0", "50.0"):
        cells = [f"{float(weight):g} %"]
        for arm in ("baseline", "twin", "candidate"):
            values = [
                each["arms"][weight][arm]
                for each in arms["each"]
                if weight in each["arms"] and each["arms"][weight][arm] is not None
            ]
            cells.append(f"{statistics.median(values):.2f} ms" if values else "–")
        rows.append(cells)
    return rows


def markdown_of(result: dict[str, Any]) -> str:
    """Both tables, and when they were taken."""
    machine = result["machine"]
    parts = [
        f"Taken {result['started']} on {machine['cores']} cores ({machine['cpu']}), commit "
        f"{machine['commit']}, by `python -m benchmarks.decisions.live`.",
        markdown([["what", "promised", "this run", ""], *rows_of(result["groups"])]),
    ]
    if "arms" in result["groups"]:
        parts += [
            "p50 of each arm (a host with little to do is slower, whatever its version):",
            markdown(
                [
                    ["candidate", "stable", "its twin", "candidate's p50"],
                    *p50_of(result["groups"]["arms"]),
                ]
            ),
        ]
    return "\n\n".join(parts)
