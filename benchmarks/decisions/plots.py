"""The pictures of the page, as SVG: `plots.py RESULT.json FOLDER`.

Runs in the benchmarks' own environment: matplotlib is no dependency of hotswap.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

matplotlib.rcParams["svg.hashsalt"] = "hotswap"
matplotlib.rcParams["font.size"] = 9

OURS, GREY, LINE = "#d9480f", "#748ca3", "#ced4da"
SHARES = {0.01: "#f4a261", 0.1: "#d9480f", 0.5: "#7f2704"}
ENGINES = ("#d9480f", "#868e96", "#adb5bd", "#4263eb", "#2b8a3e", "#9c36b5")


def plain(axes, title):
    """Without a frame, the title on the left."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def delays(seen):
    """How many of the runs had found it, by requests over what no test can beat."""
    cases = [((0.01, 0.02), "errors 1 → 2 %"), ((0.001, 0.01), "errors 0.1 → 1 %")]
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.6), sharey=True)
    for at, (rates, title) in zip(axes, cases, strict=False):
        for row in seen["errors"]:
            if (row["p0"], row["p1"]) == rates and row["which"] == "alone":
                curve(at, row)
        plain(at, title)
    for row in seen["latency"]:
        if row["which"] == "alone" and row["rho"] == 0.5:
            curve(axes[2], row, "candidate and counterpart")
    plain(axes[2], "latency × 1.2")
    for at in axes:
        at.axvline(1, color=LINE, zorder=0)
        at.set_xlim(0, 5)
        at.set_ylim(0, 1)
        at.set_xlabel("requests, over the lower bound of the mean")
        at.legend(frameon=False, loc="lower right", fontsize=8)
    axes[0].set_ylabel("share of rollouts that had found it")
    return figure


def curve(axes, row, label=None):
    """One cumulative distribution, its mean marked."""
    xs = row["times_bound"]
    ys = [at / (len(xs) - 1) for at in range(len(xs))]
    colour = SHARES[row["rho"]]
    axes.plot(xs, ys, color=colour, label=label or f"candidate at {row['rho'] * 100:g} %")
    axes.axvline(row["ratio"], color=colour, linestyle=":", linewidth=1)


def alarms(seen):
    """False rollbacks of equal versions, by engine."""
    rows = [row for row in seen if row["truth"] == "equal"]
    engines = list(rows[0]["engines"])
    figure, axes = pyplot.subplots(figsize=(11, 6.2))
    height = 0.8 / len(engines)
    for number, name in enumerate(engines):
        places = [at + (number - len(engines) / 2 + 0.5) * height for at in range(len(rows))]
        shares = [100 * row["engines"][name]["share"] for row in rows]
        axes.barh(places, shares, height, color=ENGINES[number], label=name)
    axes.axvline(5, color="black", linewidth=1, linestyle="--")
    axes.text(5.5, -0.62, "5 %: the level asked for", fontsize=8, va="bottom")
    axes.set_yticks(range(len(rows)), [row["what"].removeprefix("A/A, ") for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("rollouts of equal versions that were rolled back, %")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=6)
    plain(axes, "False alarms within 200,000 requests")
    return figure


def found(seen):
    """Median delay of every engine, where its false alarms are within bounds or not."""
    rows = [row for row in seen if row["truth"] == "worse"]
    engines = list(rows[0]["engines"])
    figure, axes = pyplot.subplots(figsize=(11, 5.4))
    for at in range(0, len(rows), 2):
        axes.axhspan(at - 0.5, at + 0.5, color="#f1f3f5", zorder=0, linewidth=0)
    for number, name in enumerate(engines):
        axes.scatter([], [], s=72, color=ENGINES[number], label=name)
        for at, row in enumerate(rows):
            engine = row["engines"][name]
            if engine["median"] is None:
                continue
            place = at + (number - len(engines) / 2 + 0.5) * 0.13
            size = 8 + 64 * engine["share"]
            axes.scatter(engine["median"], place, s=size, color=ENGINES[number])
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row["what"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("requests until the rollback (median; the larger the dot, the more were found)")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=6)
    axes.grid(axis="x", color=LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    plain(axes, "Worse candidates: when each engine finds them")
    return figure


def paths(seen):
    """Evidence over time of the example rollouts."""
    figure, axes = pyplot.subplots(figsize=(11, 4))
    colours = ("#2b8a3e", "#4263eb", "#d9480f", "#9c36b5", "#c92a2a")
    for colour, path in zip(colours, seen["paths"], strict=True):
        xs, ys = [p[0] for p in path["points"]], [p[1] for p in path["points"]]
        axes.plot(xs, ys, color=colour, label=f"{path['name']}: {path['state'].replace('_', ' ')}")
        if path["state"] == "rolled_back":
            axes.plot(xs[-1], ys[-1], "o", color=colour)
    axes.axhline(1.30103, color="black", linestyle="--", linewidth=1)
    axes.text(400, 1.36, "20 : 1, rolled back", fontsize=8)
    for at, text in ((0, "1 %"), (122, "10 %"), (243, "50 %")):
        axes.axvline(at, color=LINE, zorder=0)
        axes.text(at + 2, -1.25, f"candidate at {text}", fontsize=8, color=GREY)
    axes.set_yticks(range(-1, 4), ["1:10", "1:1", "10:1", "100:1", "1,000:1"])
    axes.set_ylim(-1.3, 3.1)
    axes.set_xlabel("seconds, at 300 requests a second")
    axes.set_ylabel("evidence that the candidate is worse")
    axes.legend(frameon=False, loc="upper right", fontsize=8)
    plain(axes, "The real machine, one rollout of each kind")
    return figure


def peaks(seen):
    """How far the evidence of equal versions ever went."""
    figure, axes = pyplot.subplots(figsize=(11, 3.2))
    for row, colour in zip(seen["aa"], (OURS, GREY), strict=False):
        values = sorted(row["peaks"], reverse=True)
        shares = [(at + 1) / len(values) for at in range(len(values))]
        label = f"{row['runs']:,} rollouts, errors {row['errors'] * 100:g} %"
        axes.plot([10**v for v in values], shares, color=colour, label=label)
    xs = [10 ** (k / 20) for k in range(81)]
    axes.plot(xs, [1 / x for x in xs], color="black", linewidth=1, linestyle="--")
    axes.text(3, 0.42, "what Ville's inequality allows", fontsize=8)
    axes.axvline(20, color=LINE, zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, 1e4)
    axes.set_ylim(1e-4, 1.2)
    axes.set_xlabel("greatest evidence (x : 1) within a rollout of equal versions")
    axes.set_ylabel("share of rollouts")
    axes.legend(frameon=False, fontsize=8)
    plain(axes, "Equal versions, watched after every event")
    return figure


PICTURES = {
    "decisions-delays": ("delays", delays),
    "decisions-alarms": ("sidebyside", alarms),
    "decisions-found": ("sidebyside", found),
    "decisions-paths": ("examples", paths),
    "decisions-peaks": ("falsealarms", peaks),
}


def main():
    """All pictures whose group was measured."""
    groups = json.loads(Path(sys.argv[1]).read_text())["groups"]
    for name, (group, picture) in PICTURES.items():
        if group not in groups:
            continue
        figure = picture(groups[group])
        figure.tight_layout()
        path = Path(sys.argv[2]) / f"{name}.svg"
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        path.write_text("\n".join(each.rstrip() for each in path.read_text().splitlines()) + "\n")
        print(path)


if __name__ == "__main__":
    main()
