"""One picture of a run, as PNG and SVG beside its JSON: `plot.py RESULT.json`.

Runs in the benchmarks' own environment: matplotlib is no dependency of hotswap.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

OURS, PEER, FLOOR = "#d9480f", "#748ca3", "#ced4da"


def colour(name: str) -> str:
    """Ours stands out; the floor stands back."""
    return {"hotswap": OURS, "nginx": FLOOR}.get(name, PEER)


def bars(axes, servers, connections, figure, title, unit):
    """One horizontal bar a server, the best on top."""
    best_is_high = figure == "rps"
    names = sorted(
        (name for name in servers if name != "nginx"),
        key=lambda name: servers[name][connections][figure],
        reverse=not best_is_high,
    )
    values = [servers[name][connections][figure] for name in names]
    drawn = axes.barh(names, values, color=[colour(name) for name in names])
    texts = [f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in values]
    axes.bar_label(drawn, texts, padding=3, fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(unit, fontsize=8)
    axes.margins(x=0.18)
    axes.spines[["top", "right"]].set_visible(False)


def pairs(axes, seen, kind, title):
    """p99 of the idle and the busy window of every pair."""
    numbers = range(1, len(seen["pairs"]) + 1)
    for name, shade in (("idle", PEER), (kind, OURS)):
        values = [pair[name]["p99_ms"] for pair in seen["pairs"]]
        axes.plot(numbers, values, "o-", color=shade, label=name)
    axes.set_xticks(list(numbers))
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("pair", fontsize=8)
    axes.set_ylabel("p99, ms", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw what the run has."""
    path = Path(sys.argv[1])
    groups = json.loads(path.read_text())["groups"]
    drawings = []
    for name, title in (("sklearn", "scikit-learn"), ("onnx", "ONNX")):
        servers = groups.get(name, {}).get("servers")
        if servers:
            drawings.append((bars, servers, "32", "rps", f"{title}, 32 connections", "requests/s"))
            drawings.append((bars, servers, "1", "p50_ms", f"{title}, 1 connection", "p50, ms"))
    for name, title in (
        ("switching", "200 switches under load"),
        ("loading", "loading a 2 s model"),
    ):
        if "pairs" in groups.get(name, {}):
            drawings.append((pairs, groups[name], name, title))
    if not drawings:
        return
    rows = (len(drawings) + 1) // 2
    figure, axes = pyplot.subplots(rows, 2, figsize=(11, 3.1 * rows), squeeze=False)
    for place in axes.flat[len(drawings) :]:
        place.set_visible(False)
    for place, (draw, *arguments) in zip(axes.flat, drawings, strict=False):
        draw(place, *arguments)
    figure.tight_layout()
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=130)


if __name__ == "__main__":
    main()
