"""The public page of a run: `python -m benchmarks.report RESULT.json [PICTURE] > docs/benchmarks.md`.

``PICTURE`` is the run's picture as the page is to link it, such as ``_static/benchmarks.svg``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalogue import FLOOR
from benchmarks.targets import Verdict, best_peer, verdicts


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [*lines, ""]


def figure(value: float | None, unit: str = "") -> str:
    """A number as people read it: three digits that mean something."""
    if value is None:
        return "–"
    if unit == "ms" and 0 < value < 0.1:
        return figure(value * 1000, "µs")
    if abs(value) >= 1000 or (float(value).is_integer() and not unit):
        text = f"{value:,.0f}"
    elif abs(value) >= 100:
        text = f"{value:.0f}"
    elif abs(value) >= 10:
        text = f"{value:.1f}"
    else:
        text = f"{value:.2f}"
    return f"{text} {unit}".strip()


SHORTCUT = (
    "The peers run scikit-learn's `predict`. hotswap answers this very pipeline, StandardScaler with "
    "LogisticRegression, in plain numpy after it was proved equal at load; pipelines of other steps "
    "run scikit-learn here too, and gain less. The figures above are for the shortcut."
)
"""What a reader has to know before comparing: it favours us."""


def markdown(result: dict[str, Any], picture: str | None = None) -> str:
    """The whole page; ``picture`` is a link to the run's picture."""
    groups = result["groups"]
    judged = verdicts(groups, quick=result["quick"])
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks.report` from the result of `make bench`; figures are medians, and all servers were measured on the same machine in interleaved rounds.",
        "",
        *machine_lines(result),
        *merged_lines(result),
        *disturbed_lines(groups),
        *target_lines(judged),
    ]
    if picture:
        lines += [f"![requests/s and latency of every server]({picture})", ""]
    for name, title in (("sklearn", "scikit-learn"), ("onnx", "ONNX of the same model")):
        if "servers" in groups.get(name, {}):
            lines += capacity_lines(title, groups[name])
            if name == "sklearn":
                lines += [SHORTCUT, ""]
    for name, writer in WRITERS.items():
        if name in groups and "problem" not in groups[name]:
            lines += writer(groups[name])
    problems = {name: seen["problem"] for name, seen in groups.items() if "problem" in seen}
    if problems:
        lines += ["## Not measured", ""]
        lines += [f"- {name}: {why}" for name, why in problems.items()] + [""]
    lines += method_lines()
    return "\n".join(lines).rstrip() + "\n"


def machine_lines(result: dict[str, Any]) -> list[str]:
    machine = result["machine"]
    versions = result["versions"]
    quick = " This was a quick run: shorter windows and fewer rounds." if result["quick"] else ""
    lines = [
        f"Taken {result['started']} on {machine['cores']} cores ({machine['cpu']}), "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}, "
        f"commit {machine['commit']}; load average before it {machine['load_average'][0]:.1f}.{quick}",
        "",
        "<details><summary>Versions</summary>",
        "",
    ]
    lines += [f"- {name}: {version}" for name, version in versions.items()]
    return [*lines, "", "</details>", ""]


def merged_lines(result: dict[str, Any]) -> list[str]:
    """Says so if some groups were kept from an earlier run."""
    if "--into" not in result["command"]:
        return []
    return [
        "Not all groups are of one run: some were measured anew into an earlier result of this "
        "machine. What is compared within a group was always measured side by side.",
        "",
    ]


def disturbed_lines(groups: dict[str, Any]) -> list[str]:
    """A warning if the machine was not ours alone."""
    others = [seen["others_cores"] for seen in groups.values() if "others_cores" in seen]
    if not others or max(others) <= 0.1:
        return []
    return [
        f"```{{warning}}\nThis run was disturbed: other processes used up to {max(others):.1f} cores "
        "meanwhile. Ratios between servers suffer less than absolute figures and tails do.\n```",
        "",
    ]


def target_lines(judged: list[Verdict]) -> list[str]:
    rows = []
    for each in judged:
        sign = "≤" if each.target.at_most else "≥"
        unit = each.target.unit
        percent = each.target.title.endswith("growth of memory")
        limit = f"{each.target.limit:.0%}" if percent else figure(each.target.limit, unit)
        value = figure(each.value, unit)
        if percent and each.value is not None:
            value = f"{each.value:.1%}"
        reason = each.why.splitlines()[0] if each.why else ""
        word = each.word if each.passed is not None else f"{each.word}: {reason}"
        rows.append([each.target.title, f"{sign} {limit}", value, word])
    return ["## Targets", "", *table(["what", "target", "this run", ""], rows)]


def capacity_lines(title: str, group: dict[str, Any]) -> list[str]:
    servers = group["servers"]
    order = sorted(servers, key=lambda name: -servers[name]["32"]["rps"])
    rows = []
    for name in order:
        one, many = servers[name]["1"], servers[name]["32"]
        label = f"**{name}**" if name == "hotswap" else name
        if name == FLOOR:
            label += " (constant answer: the floor)"
        failed = sum(int(r["errors"]) for r in one["rounds"] + many["rounds"])
        rows.append(
            [
                label,
                figure(many["rps"]),
                figure(many["p50_ms"], "ms"),
                figure(many["p99_ms"], "ms"),
                many["setting"],
                figure(one["p50_ms"], "ms"),
                figure(one["p99_ms"], "ms"),
                one["setting"],
                str(failed),
            ]
        )
    lines = [
        f"## One row a request: {title}",
        "",
        *table(
            ["server", "32 connections: requests/s", "p50", "p99", "setting",
             "1 connection: p50", "p99", "setting", "errors"],
            rows,
        ),
    ]  # fmt: skip
    if "hotswap" in servers and len(set(servers) - {"hotswap", FLOOR}):
        name, rps = best_peer(group, "32", "rps", max)
        quickest, p50 = best_peer(group, "1", "p50_ms", min)
        mine = servers["hotswap"]
        lines += [
            f"Against the best peer: {mine['32']['rps'] / rps:.2f} × the requests/s of {name}, "
            f"{mine['1']['p50_ms'] / p50:.2f} × the one-connection p50 of {quickest}.",
            "",
        ]
    for name, why in group["missing"].items():
        lines += [f"Not measured: {name}: {why.splitlines()[0]}", ""]
    return lines


def switching_lines(seen: dict[str, Any]) -> list[str]:
    return [
        "## Switches under load",
        "",
        f"{seen['switches']} switches between two warm versions, at {figure(seen['rate'])} requests/s "
        f"(half the capacity): {seen['failed']} requests failed, {seen['stale_answers']} answers by the "
        f"old version after a switch had returned. p99 {figure(seen['switching_p99_ms'], 'ms')} against "
        f"{figure(seen['idle_p99_ms'], 'ms')} idle. Flip: median {figure(seen['flip_p50_ms'], 'ms')}, "
        f"p99 {figure(seen['flip_p99_ms'], 'ms')}, longest {figure(seen['flip_max_ms'], 'ms')}.",
        "",
        *pair_lines(seen["pairs"], "switching"),
    ]


def loading_lines(seen: dict[str, Any]) -> list[str]:
    return [
        "## Loading beside traffic",
        "",
        f"A version whose load takes 2 s of one core, at {figure(seen['rate'])} requests/s: "
        f"{seen['failed']} failed; p99 of the requests due while it loaded "
        f"{figure(seen['loading_p99_ms'], 'ms')} against {figure(seen['idle_p99_ms'], 'ms')} idle; "
        f"the longest wait {figure(seen['max_ms'], 'ms')} (median of the windows).",
        "",
        *pair_lines(seen["pairs"], "loading"),
    ]


def pair_lines(pairs: list[dict[str, Any]], kind: str) -> list[str]:
    rows = []
    for number, pair in enumerate(pairs, 1):
        idle, other = pair["idle"], pair[kind]
        rows.append(
            [
                str(number),
                figure(idle["p50_ms"], "ms"),
                figure(idle["p99_ms"], "ms"),
                figure(other["p50_ms"], "ms"),
                figure(other["p99_ms"], "ms"),
                figure(max(idle["lag_p99_ms"], other["lag_p99_ms"]), "ms"),
            ]
        )
    header = [
        "pair",
        "idle p50",
        "idle p99",
        f"{kind} p50",
        f"{kind} p99",
        "generator's own lag, p99",
    ]
    return table(header, rows)


def ready_lines(seen: dict[str, Any]) -> list[str]:
    return [
        "## A cold version takes over",
        "",
        f"`switch` to a small version that is not loaded: answered after "
        f"{figure(seen['ready_ms'], 'ms')} (median of {len(seen['switches'])}). The first request after it "
        f"took {seen['first_ratio']:.2f} × the steady p50 (median; worst {seen['first_ratio_worst']:.2f} ×).",
        "",
    ]


def memory_lines(seen: dict[str, Any]) -> list[str]:
    rows = [
        [
            name,
            figure(each["artifact_mib"], "MiB"),
            figure(each["beyond_artifact_mib"], "MiB"),
            ", ".join(figure(v["private_mib"]) for v in each["versions"]),
            ", ".join(figure(v["shown_mib"]) for v in each["versions"]),
        ]
        for name, each in seen.items()
        if isinstance(each, dict)  # beside the formats stands how the group was run
    ]
    header = [
        "format",
        "artifact",
        "unshared beyond it (median)",
        "each version's host (MiB)",
        "as control shows it",
    ]
    return ["## Memory of a loaded version", "", *table(header, rows)]


def overload_lines(seen: dict[str, Any]) -> list[str]:
    return [
        "## Three times the load",
        "",
        f"A model that takes 2 ms a request (8 rows); peak {figure(seen['peak_rps'])} requests/s, offered "
        f"{figure(seen['offered_rps'])}/s over 2,000 connections: goodput {figure(seen['goodput_rps'])}/s "
        f"({seen['goodput_ratio']:.0%} of peak), {seen['refused']:,} refused after "
        f"{figure(seen['refusal_p50_ms'], 'ms')} (p99 {figure(seen['refusal_p99_ms'], 'ms')}), "
        f"{seen['other']} ended otherwise.",
        "",
    ]


def protocol_lines(seen: dict[str, Any]) -> list[str]:
    rows = [
        [name, figure(each["32"]["rps"]), figure(each["1"]["p50_ms"], "ms")]
        for name, each in seen["cases"].items()
    ]
    return [
        "## Protocols",
        "",
        *table(["request", "32 connections: requests/s", "1 connection: p50"], rows),
    ]


def worker_lines(seen: dict[str, Any]) -> list[str]:
    rows = [
        [
            name,
            figure(each["32"]["rps"]),
            figure(each["32"]["p99_ms"], "ms"),
            figure(each["1"]["p50_ms"], "ms"),
        ]
        for name, each in seen["workers"].items()
    ]
    return [
        "## Workers",
        "",
        *table(["workers", "32 connections: requests/s", "p99", "1 connection: p50"], rows),
    ]


def row_lines(seen: dict[str, Any]) -> list[str]:
    rows = [
        [
            str(e["rows"]),
            e["form"],
            figure(e["rps"]),
            figure(e["rows_per_second"]),
            figure(e["p50_ms"], "ms"),
        ]
        for e in seen["cases"]
    ]
    header = ["rows a request", "form", "requests/s", "rows/s", "p50"]
    return ["## Rows a request (8 connections)", "", *table(header, rows)]


def registry_lines(seen: dict[str, Any]) -> list[str]:
    rows = [[f"{int(name):,}", figure(rps)] for name, rps in seen["rps"].items()]
    return ["## Registered models", "", *table(["models", "requests/s"], rows)]


def request_lines(seen: dict[str, Any]) -> list[str]:
    return [
        "## Routing one request",
        "",
        f"Choose, lease and tally: {figure(seen['median_us'], 'µs')} a request.",
        "",
    ]


def recording_lines(seen: dict[str, Any]) -> list[str]:
    return [
        "## Records",
        "",
        f"Every request recorded with its inputs, against none: {seen['rps_ratio']:.3f} × the requests/s at 32 "
        f"connections (median of {len(seen['closed']['on'])} pairs), {seen['p99_ratio']:.2f} × the p99 at "
        f"{figure(seen['rate'])} requests/s ({figure(seen['on_p99_ms'], 'ms')} against "
        f"{figure(seen['off_p99_ms'], 'ms')}; p50 {seen['p50_ratio']:.2f} ×). Processor time of all processes: "
        f"{figure(seen['processor_us']['on'], 'µs')} against {figure(seen['processor_us']['off'], 'µs')} a "
        f"request ({seen['processor_ratio']:.3f} ×); the recorder's own {figure(seen['recorder_us'], 'µs')}.",
        "",
    ]


def swap_lines(seen: dict[str, Any]) -> list[str]:
    return [
        "## Memory over swaps",
        "",
        f"{seen['cycles']} swaps of a {seen['megabytes']} MB model: {figure(seen['before_mib'])} MiB before, "
        f"{figure(seen['after_mib'])} MiB after (all processes, shared pages counted once): "
        f"{seen['growth']:+.1%}.",
        "",
    ]


WRITERS = {
    "switching": switching_lines,
    "loading": loading_lines,
    "ready": ready_lines,
    "memory": memory_lines,
    "overload": overload_lines,
    "protocols": protocol_lines,
    "workers": worker_lines,
    "rows": row_lines,
    "registry": registry_lines,
    "request": request_lines,
    "recording": recording_lines,
    "swaps": swap_lines,
}


def method_lines() -> list[str]:
    return [
        "## How it is measured",
        "",
        "- **Model and work.** scikit-learn's breast-cancer data, StandardScaler and LogisticRegression in "
        "one pipeline; one row in, the label out. Every server must answer two rows rightly before it is measured.",
        "- **Capacity.** `wrk` in a closed loop with one thread, 1 and 32 keep-alive connections, after a "
        "warm-up. Servers are started afresh in every round.",
        "- **Settings.** Each peer, and hotswap, is tried in a few settings first; the best for each number of "
        "connections is what is measured. All tried settings are in the JSON.",
        "- **Tails.** An open loop at half the capacity just measured. Latency counts from the moment a "
        "request was due, so a stall is seen in full. Idle and busy windows alternate; ratios are medians "
        "over the pairs.",
        "- The load generators share the machine with the servers, as they do for every peer.",
        "",
    ]


def main() -> None:
    """Write the page of the result that is named to standard output."""
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    result = json.loads(Path(sys.argv[1]).read_text())
    sys.stdout.write(markdown(result, sys.argv[2] if len(sys.argv) == 3 else None))


if __name__ == "__main__":
    main()
