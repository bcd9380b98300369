"""What is promised of decisions, and whether a run kept it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple


class Verdict(NamedTuple):
    """One promise: what, its limit in words, what was seen, and whether that is within it."""

    what: str
    limit: str
    seen: str
    kept: bool


def percent(value: float, digits: int = 2) -> str:
    """A share as people read it.

    >>> percent(0.0213)
    '2.13 %'
    """
    return f"{value * 100:.{digits}f} %"


def sampled(rate: float, level: float, runs: int) -> bool:
    """Whether a rate seen in so many runs agrees with a limit: up to three standard errors above.

    >>> sampled(0.0011, 0.001, 10_000), sampled(0.0057, 0.05, 10_000), sampled(0.057, 0.05, 10_000)
    (True, True, False)
    """
    return rate <= level + 3.0 * math.sqrt(level * (1.0 - level) / runs)


def verdicts(groups: dict[str, Any]) -> list[Verdict]:
    """Every promise of which something was measured."""
    found: list[Verdict] = []
    for name, judge in _JUDGES.items():
        if name in groups:
            found += judge(groups[name])
    return found


def _false_alarms(seen: dict[str, Any]) -> Iterator[Verdict]:
    for row in seen["aa"]:
        yield Verdict(
            f"A/A, errors {row['errors'] * 100:g} %: false rollbacks of {row['runs']:,}",
            "≤ 5 %",
            percent(row["rate"]),
            sampled(row["rate"], 0.05, row["runs"]),
        )
        yield Verdict(
            f"A/A, errors {row['errors'] * 100:g} %: false sample-ratio alarms",
            "≤ 0.1 %",
            percent(row["ratio_rate"], 3),
            sampled(row["ratio_rate"], 0.001, row["runs"]),
        )


def _margins(seen: dict[str, Any]) -> Iterator[Verdict]:
    for row in seen["margin"]:
        yield Verdict(
            f"at the margin, {row['what']}: false promotions",
            "≤ 5 %",
            percent(row["rate"]),
            sampled(row["rate"], 0.05, row["runs"]),
        )


#: Times the bound, by the rates of errors.
_LIMITS = {(0.001, 0.01): 1.7, (0.01, 0.02): 1.6}


def _delays(seen: dict[str, Any]) -> Iterator[Verdict]:
    for row in seen["errors"]:
        limit = _LIMITS.get((row["p0"], row["p1"]))
        if limit is None or row["which"] != "alone":
            continue
        yield Verdict(
            f"errors {row['p0'] * 100:g} → {row['p1'] * 100:g} % at {row['rho'] * 100:g} %: "
            "mean delay against the bound",
            f"≤ {limit:g} ×",
            f"{row['ratio']:.2f} ×",
            row["ratio"] <= limit,
        )
    for row in seen["latency"]:
        if row["which"] == "alone":
            yield Verdict(
                f"latency × 1.2 at {row['rho'] * 100:g} %: mean delay against the bound of what "
                "is compared",
                "≤ 2 ×",
                f"{row['ratio']:.2f} ×",
                row["ratio"] <= 2.0,
            )
    paired = seen["labels"][0]
    yield Verdict(
        "accuracy −1 point, paired, 5 % disagreement: labels",
        "≤ 4,200",
        f"{paired['mean']:,.0f}",
        paired["mean"] <= 4200,
    )


def _broken(seen: list[dict[str, Any]]) -> Iterator[Verdict]:
    for row in seen:
        for workers, word in ((1, "one worker"), (4, "four workers")):
            best = min(row["evidence"], row[f"breaker_{workers}"])
            yield Verdict(
                f"broken ({row['p1'] * 100:g} % fail) at {row['rho'] * 100:g} %, {word}: candidate "
                "requests, by evidence or the breaker",
                "≤ 5",
                f"{best:.1f}",
                best <= 5.05,  # as it is shown
            )


def _side_by_side(seen: list[dict[str, Any]]) -> Iterator[Verdict]:
    for row in seen:
        if row["truth"] == "equal":
            seen_by = row["engines"]["hotswap"]
            rate, runs = seen_by["share"], seen_by["runs"]
            kept = sampled(rate, 0.05, runs)
            yield Verdict(f"{row['what']}: false rollbacks", "≤ 5 %", percent(rate), kept)


def _low_traffic(seen: list[dict[str, Any]]) -> Iterator[Verdict]:
    for row in seen:
        if not row["worse"]:
            yield Verdict(
                f"{row['size']:,} requests a step, 50 looks: false rollbacks",
                "≤ 5 %",
                percent(row["hotswap"]),
                sampled(row["hotswap"], 0.05, row["runs"]),
            )


def _sticky(seen: list[dict[str, Any]]) -> Iterator[Verdict]:
    for row in seen:
        if row["what"] == "a user's first error":
            yield Verdict(
                f"sticky traffic with heavy users at {row['rho'] * 100:g} %: false rollbacks",
                "≤ 5 %",
                percent(row["rate"]),
                sampled(row["rate"], 0.05, row["runs"]),
            )


def _bandit(seen: list[dict[str, Any]]) -> Iterator[Verdict]:
    row = seen[0]
    yield Verdict(
        "bandit between equal versions: false rollbacks",
        "≤ 5 %",
        percent(row["rolled_back"]),
        sampled(row["rolled_back"], 0.05, row["runs"]),
    )


def _alarms(seen: dict[str, Any]) -> Iterator[Verdict]:
    row = next(r for r in seen["lost"] if r["rho"] == 0.01 and r["loss"] == 0.2)
    yield Verdict(
        "20 % of the candidate's outcomes lost at 1 %: mean requests to the alarm",
        "near 40,000",
        f"{row['mean']:,.0f}",
        row["mean"] <= 50_000,
    )


def _cost(seen: dict[str, Any]) -> Iterator[Verdict]:
    row = seen["thousand"]
    yield Verdict(
        f"deciding {row['rollouts']:,} rollouts once: processor seconds",
        "≤ 1 s",
        f"{row['processor']:.2f} s",
        row["processor"] <= 1.0,
    )
    week = min(seen["week"], key=lambda each: each["processor"])
    yield Verdict(
        f"seven days simulated, a tick every {week['tick']:g} s: processor seconds",
        "≤ 1 s",
        f"{week['processor']:.2f} s",
        week["processor"] <= 1.0,
    )


_JUDGES: Final[dict[str, Callable[[Any], Iterator[Verdict]]]] = {
    "falsealarms": _false_alarms,
    "margins": _margins,
    "delays": _delays,
    "broken": _broken,
    "sidebyside": _side_by_side,
    "lowtraffic": _low_traffic,
    "sticky": _sticky,
    "bandit": _bandit,
    "alarms": _alarms,
    "cost": _cost,
}
