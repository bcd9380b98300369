"""Rows in a file → the body of ``POST /predict``."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from hotswap.cli.client import CommandFailed


def read_body(content: bytes, name: str) -> dict[str, Any]:
    """``{"features": …}`` from JSON or CSV; ``name`` (a file's, or "stdin") tells which, else the
    first character does.

    >>> read_body(b"a,b\\n1,x\\n", "rows.csv")
    {'features': [{'a': 1, 'b': 'x'}]}
    >>> read_body(b"[1, 2.5]", "stdin")
    {'features': [1, 2.5]}
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandFailed(f"{name} is not UTF-8 text: give JSON or CSV") from None
    if not text.strip():
        raise CommandFailed(f"{name} is empty: give rows as JSON or CSV")
    suffix = name.lower().rpartition(".")[2]
    if suffix != "csv" and (suffix == "json" or text.lstrip()[0] in "[{"):
        return _json(text, name)
    return {"features": _csv(text, name)}


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise CommandFailed(f"{name} is not valid JSON: {problem}") from None
    if isinstance(value, dict) and "features" in value:
        return value
    if isinstance(value, dict | list) and value:
        return {"features": value}
    raise CommandFailed(
        f"{name} must hold a list of rows, a row of {{name: value}}, or a body with 'features'"
    )


def _csv(text: str, name: str) -> list[Any]:
    """Rows as lists, or as {name: value} if the first line holds names."""
    try:
        lines = [line for line in csv.reader(io.StringIO(text), strict=True) if line]
    except csv.Error as problem:
        raise CommandFailed(f"{name} is not valid CSV: {problem}") from None
    first = lines[0]
    for number, line in enumerate(lines, 1):
        if len(line) != len(first):
            raise CommandFailed(
                f"row {number} of {name} has {len(line)} values, but the first row {len(first)}"
            )
    if any(isinstance(_cell(cell), str) for cell in first) and _are_names(first):
        if len(lines) == 1:
            raise CommandFailed(f"{name} has a line of names but no rows")
        return [dict(zip(first, map(_cell, line), strict=True)) for line in lines[1:]]
    return [[_cell(cell) for cell in line] for line in lines]


def _are_names(cells: list[str]) -> bool:
    """Names are text, all of them, and differ."""
    texts = [cell for cell in cells if isinstance(_cell(cell), str)]
    return len(texts) == len(cells) == len(set(cells))


def _cell(cell: str) -> Any:
    """A number where it is one, null where it is empty or NaN, else text."""
    cell = cell.strip()
    if not cell or cell.lower() == "nan":
        return None
    if "_" in cell:  # Python would read 1_000 as a number
        return cell
    for kind in (int, float):
        try:
            number = kind(cell)
        except ValueError:
            continue
        if math.isinf(number):
            raise CommandFailed(f"'{cell[:40]}' is infinite, and JSON knows no infinity")
        return number
    return cell
