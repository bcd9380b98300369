"""The account on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import figure
from benchmarks.targets import verdicts

COLOURS = {"pass": "green", "FAIL": "bold red", "not measured": "yellow"}


def show(console: Console, result: dict[str, Any]) -> None:
    """Capacities, then every promise with its figure."""
    for name, title in (("sklearn", "scikit-learn"), ("onnx", "ONNX")):
        group = result["groups"].get(name, {})
        if "servers" in group:
            console.print(_capacity(title, group))
    table = Table(title="Targets")
    for column in ("what", "target", "this run", ""):
        table.add_column(column, justify="left" if column in ("what", "") else "right")
    for each in verdicts(result["groups"], quick=result["quick"]):
        sign = "≤" if each.target.at_most else "≥"
        word = f"[{COLOURS[each.word]}]{each.word}[/]"
        limit = f"{sign} {figure(each.target.limit, each.target.unit)}"
        table.add_row(each.target.title, limit, figure(each.value, each.target.unit), word)
    console.print(table)


def _capacity(title: str, group: dict[str, Any]) -> Table:
    table = Table(title=f"One row a request: {title}")
    for column in (
        "server",
        "c=32 req/s",
        "p50 ms",
        "p99 ms",
        "setting",
        "c=1 p50 ms",
        "p99 ms",
        "setting",
    ):
        table.add_column(column, justify="left" if column in ("server", "setting") else "right")
    servers = group["servers"]
    for name in sorted(servers, key=lambda each: -servers[each]["32"]["rps"]):
        one, many = servers[name]["1"], servers[name]["32"]
        table.add_row(
            name,
            figure(many["rps"]),
            f"{many['p50_ms']:.2f}",
            f"{many['p99_ms']:.2f}",
            many["setting"],
            f"{one['p50_ms']:.2f}",
            f"{one['p99_ms']:.2f}",
            one["setting"],
        )
    return table
