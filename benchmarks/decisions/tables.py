"""Every table of the page, from a result's groups: headers, then rows of strings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from benchmarks.decisions.targets import percent, verdicts

Table = list[list[str]]


def _share(rho: float) -> str:
    return f"{rho * 100:g} %"


def _within(row: dict[str, Any], digits: int = 2) -> str:
    low, high = row["interval"]
    return f"{low * 100:.{digits}f} to {high * 100:.{digits}f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def targets(groups: dict[str, Any]) -> Table:
    """Every promise with its figure."""
    rows = [["what", "promised", "this run", ""]]
    rows += [[v.what, v.limit, v.seen, "kept" if v.kept else "**not kept**"] for v in verdicts(groups)]  # fmt: skip
    return rows


def aa(groups: dict[str, Any]) -> Table:
    """Equal versions."""
    rows = [["errors of both", "rollouts", "requests each", "rolled back", "95 % interval", "sample-ratio alarms", "mean of the last e-value"]]  # fmt: skip
    rows += [
            [
                _share(row["errors"]), f"{row['runs']:,}", f"{row['requests']:,}",
                f"{row['rollbacks']} ({percent(row['rate'])})", _within(row),
                f"{row['ratio_alarms']} ({percent(row['ratio_rate'], 3)})",
                f"{row['mean_last']:.2f} ± {row['mean_last_error']:.2f}",
            ]
            for row in groups["falsealarms"]["aa"]
    ]  # fmt: skip
    return rows


def exact(groups: dict[str, Any]) -> Table:
    """By dynamic programming."""
    rows = [["candidate", "within 200 errors", "within 2,000 errors"]]
    rows += [[_share(row["rho"]), percent(row["200"], 3), percent(row["2000"], 3)] for row in groups["falsealarms"]["exact"]]  # fmt: skip
    return rows


def margin(groups: dict[str, Any]) -> Table:
    """False promotions."""
    rows = [["candidate exactly at the margin", "rollouts", "proved within it", "95 % interval", "mean of the last e-value"]]  # fmt: skip
    for row in groups["margins"]["margin"]:
        last = f"{row['mean_last']:.2f} ± {row['mean_last_error']:.2f}" if "mean_last" in row else "–"  # fmt: skip
        rows.append([row["what"], f"{row['runs']:,}", f"{row['promotions']} ({percent(row['rate'])})", _within(row), last])  # fmt: skip
    return rows


def proof(groups: dict[str, Any]) -> Table:
    """Errors that a proof takes."""
    rows = [["candidate", "errors of both arms, mean", "median", "90 % within"]]
    rows += [[_share(row["rho"]), *(_number(row[k]) for k in ("mean", "median", "p90"))] for row in groups["margins"]["proof"]]  # fmt: skip
    return rows


def errors(groups: dict[str, Any]) -> Table:
    """Delays of F1 alone, and in the default set."""
    rows = [["errors", "candidate", "bound", "mean", "median", "90 % within", "× bound", "candidate's requests", "of them failed", "in the default set: mean", "× bound"]]  # fmt: skip
    cells = groups["delays"]["errors"]
    in_set = {(c["rho"], c["p0"], c["p1"]): c for c in cells if c["which"] == "set"}
    for cell in cells:
        if cell["which"] != "alone":
            continue
        other = in_set[(cell["rho"], cell["p0"], cell["p1"])]
        rows.append(
            [
                f"{cell['p0'] * 100:g} → {cell['p1'] * 100:g} %", _share(cell["rho"]),
                *(_number(cell[k]) for k in ("bound", "mean", "median", "p90")),
                f"{cell['ratio']:.2f} ± {cell['ratio_error']:.2f}",
                f"{cell['candidate']:,.1f}", f"{cell['failures']:,.1f}",
                _number(other["mean"]), f"{other['ratio']:.2f}",
            ]
        )  # fmt: skip
    return rows


def latency(groups: dict[str, Any]) -> Table:
    """Delays of latency."""
    rows = [["level", "candidate", "bound of what is compared", "bound of all requests", "mean from the first bet", "median", "90 % within", "× bound of what is compared", "latencies compared, mean", "of them the candidate's", "requests before the first bet"]]  # fmt: skip
    words = {"alone": "alone", "set": "in the default set"}
    rows += [
            [
                words[cell["which"]], _share(cell["rho"]), _number(cell["bound"]),
                _number(cell["bound_all"]), *(_number(cell[k]) for k in ("mean", "median", "p90")),
                f"{cell['ratio']:.2f} ± {cell['ratio_error']:.2f}", _number(cell["latencies"]),
                f"{cell['candidate']:,.0f}", _number(cell["reference"]),
            ]
            for cell in groups["delays"]["latency"]
    ]  # fmt: skip
    return rows


def labels(groups: dict[str, Any]) -> Table:
    """Delays of accuracy."""
    rows = [["labels", "candidate", "bound", "mean", "median", "90 % within", "× bound", "found"]]
    for cell in groups["delays"]["labels"]:
        found = 1 - cell["missed"] / cell["runs"]
        rows.append(
            [
                cell["what"], "both answer" if cell["rho"] == 1.0 else _share(cell["rho"]),
                *(_number(cell[k]) for k in ("bound", "mean", "median", "p90")),
                f"{cell['ratio']:.2f} ± {cell['ratio_error']:.2f}", percent(found, 1),
            ]
        )  # fmt: skip
    return rows


def recorded(groups: dict[str, Any]) -> Table:
    """Labels on recorded predictions, each group against its cheapest paired accuracy."""
    rows = [["versions", "disagree", "judged by", "stable → candidate", "labels, mean", "median", "90 % within", "found", "× paired accuracy", "equal versions: rolled back"]]  # fmt: skip
    paired = {row["what"]: row["mean"] for row in reversed(groups["labels"]) if not row["unpaired"] and "F5" in row["method"]}  # fmt: skip
    for row in groups["labels"]:
        digits = 4 if row["method"].startswith(("log", "Brier")) else 1
        before, after = (
            f"{x:.{digits}f}" if digits == 4 else percent(x, 1) for x in (row["before"], row["after"])
        )  # fmt: skip
        base, mean = paired.get(row["what"]), row["mean"]
        rows.append(
            [
                row["what"], percent(row["disagreement"], 1), row["method"], f"{before} → {after}",
                *(_number(row[k]) for k in ("mean", "median", "p90")), percent(row["found"], 1),
                f"{mean / base:.1f}" if base and mean else "–",
                percent(row["false"], 1) if "false" in row else "–",
            ]
        )  # fmt: skip
    return rows


def broken(groups: dict[str, Any]) -> Table:
    """Requests to a broken candidate."""
    rows = [["fails", "candidate", "evidence after every request", "machine, 20 requests/s", "machine, 200 requests/s", "breaker, 1 worker", "breaker, 4 workers"]]  # fmt: skip
    keys = ("evidence", "machine_20", "machine_200", "breaker_1", "breaker_4")
    rows += [[_share(row["p1"]), _share(row["rho"]), *(f"{row[key]:.1f}" for key in keys)] for row in groups["broken"]]  # fmt: skip
    return rows


def false_by_engine(groups: dict[str, Any]) -> Table:
    """Equal versions, all engines."""
    return _engines(groups, "equal")


def found_by_engine(groups: dict[str, Any]) -> Table:
    """Worse candidates, all engines."""
    return _engines(groups, "worse")


def _engines(groups: dict[str, Any], truth: str) -> Table:
    seen = [row for row in groups["sidebyside"] if row["truth"] == truth]
    rows = [["what", *seen[0]["engines"]]]
    for row in seen:
        cells = []
        for engine in row["engines"].values():
            text = percent(engine["share"], 1)
            if truth == "worse" and engine["median"] is not None:
                text += f", {engine['median'] / 1000:,.1f}k"
            cells.append(text)
        rows.append([row["what"], *cells])
    return rows


def low_traffic(groups: dict[str, Any]) -> Table:
    """Few requests a step."""
    rows = [["candidate", "requests a step", "hotswap, 50 looks", "95 % interval", "hotswap, 10 looks", "one failed sample, 10", "more than three, 10", "two, 10", "more than three, 50 looks", "two, 50 looks"]]  # fmt: skip
    keys = ("argo_0", "argo_3", "flagger_2", "argo_3_50", "flagger_2_50")
    rows += [
            [
                "5 points worse" if row["worse"] else "equal", f"{row['size']:,}",
                percent(row["hotswap"]), _within(row), percent(row["hotswap_10"]),
                *(percent(row[key], 1) for key in keys),
            ]
            for row in groups["lowtraffic"]
    ]  # fmt: skip
    return rows


def sticky(groups: dict[str, Any]) -> Table:
    """Heavy users."""
    rows = [["candidate", "what is counted", "rollouts", "rolled back", "95 % interval"]]
    rows += [[_share(row["rho"]), row["what"], f"{row['runs']:,}", percent(row["rate"]), _within(row)] for row in groups["sticky"]]  # fmt: skip
    return rows


def bandit(groups: dict[str, Any]) -> Table:
    """Thompson sampling."""
    rows = [["errors, stable → candidate", "runs", "rolled back", "95 % interval", "promoted", "a peeked z-test rolls back", "candidate's share until the verdict"]]  # fmt: skip
    rows += [
            [
                f"{row['p0'] * 100:g} → {row['p1'] * 100:g} %", f"{row['runs']:,}",
                percent(row["rolled_back"]), _within(row), percent(row["promoted"]),
                percent(row["peeked"], 1), percent(row["exposure"], 1),
            ]
            for row in groups["bandit"]
    ]  # fmt: skip
    return rows


def lost(groups: dict[str, Any]) -> Table:
    """Sample ratio."""
    rows = [["lost of the candidate's outcomes", "candidate", "rollouts", "requests watched", "alarmed", "bound", "mean requests", "median"]]  # fmt: skip
    rows += [
            [
                _share(row["loss"]), _share(row["rho"]), f"{row['runs']:,}", f"{row['horizon']:,}",
                percent(row["found"]), *(_number(row[k]) for k in ("bound", "mean", "median")),
            ]
            for row in groups["alarms"]["lost"]
    ]  # fmt: skip
    return rows


def change(groups: dict[str, Any]) -> Table:
    """After promotion."""
    rows = [["errors before → after", "runs", "bound", "mean requests to the alarm", "median", "alarmed within 100,000", "alarmed at all"]]  # fmt: skip
    for row in groups["alarms"]["change"]:
        least = "≥ " if row["found"] < 1 else ""
        rows.append(
            [
                f"{row['p0'] * 100:g} → {row['p1'] * 100:g} %", f"{row['runs']:,}",
                _number(row["bound"]), least + _number(row["mean"]), _number(row["median"]),
                percent(row["within_arl"], 1),
                f"{percent(row['found'], 1)} within {row['horizon']:,}",
            ]
        )  # fmt: skip
    return rows


def machine(groups: dict[str, Any]) -> Table:
    """Examples and whole rollouts on the real machine."""
    rows = [["candidate", "ended", "after", "candidate's requests", "why"]]
    seen = groups["examples"]
    for path in seen["paths"]:
        why = next((m for _, state, m in path["moves"] if state in ("rolling_back", "promoting")), "")  # fmt: skip
        rows.append([path["name"], path["state"].replace("_", " "), f"{path['seconds']:,.0f} s", _number(path["candidate"]), why])  # fmt: skip
    for key, name in (("equal_back", "equal"), ("worse_back", "errors 1 → 3 %")):
        rows.append([f"{seen['runs']:,} rollouts, {name}", f"{seen[key]} rolled back", "–", "–", ""])  # fmt: skip
    return rows


def cost(groups: dict[str, Any]) -> Table:
    """Seconds."""
    rows = [
        ["what", "ticks", "seconds", "processor seconds", "per decision", "at a tick each 0.2 s"]
    ]
    many = groups["cost"]["thousand"]
    rows.append(
        [
            f"{many['rollouts']:,} rollouts, new evidence for each", "1 each",
            f"{many['seconds']:.2f} (best {many['best']:.2f})", f"{many['processor']:.2f}",
            f"{many['processor'] / many['rollouts'] * 1e6:,.0f} µs", "–",
        ]
    )  # fmt: skip
    rows.append(
        [
            f"{many['rollouts']:,} rollouts, nothing new", "1 each", f"{many['idle']:.3f}",
            "–", f"{many['idle'] / many['rollouts'] * 1e6:,.0f} µs", "–",
        ]
    )  # fmt: skip
    rows += [
            [
                f"seven days, 2 requests/s, a tick every {row['tick']:g} s", f"{row['ticks']:,}",
                f"{row['seconds']:.2f}", f"{row['processor']:.2f}", f"{row['per_tick_us']:,.0f} µs",
                f"{row['three_million']:,.0f} s for 3,024,000 ticks",
            ]
            for row in groups["cost"]["week"]
    ]  # fmt: skip
    return rows


#: Marker on the page → (the group that it needs, its table).
TABLES: Final[dict[str, tuple[str, Callable[[dict[str, Any]], Table]]]] = {
    "targets": ("falsealarms", targets),
    "aa": ("falsealarms", aa),
    "exact": ("falsealarms", exact),
    "margin": ("margins", margin),
    "proof": ("margins", proof),
    "errors": ("delays", errors),
    "latency": ("delays", latency),
    "labels": ("delays", labels),
    "recorded": ("labels", recorded),
    "broken": ("broken", broken),
    "false": ("sidebyside", false_by_engine),
    "found": ("sidebyside", found_by_engine),
    "lowtraffic": ("lowtraffic", low_traffic),
    "sticky": ("sticky", sticky),
    "bandit": ("bandit", bandit),
    "lost": ("alarms", lost),
    "change": ("alarms", change),
    "machine": ("examples", machine),
    "cost": ("cost", cost),
}
