"""Rows in a file → the body of ``POST /predict``."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
from collections.abc import Mapping
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
    if is_csv(content, name):
        return {"features": _csv(text, name)}
    return _json(text, name)


def is_csv(content: bytes, name: str) -> bool:
    """Whether `read_body` takes it for CSV.

    >>> is_csv(b"a,b", "stdin"), is_csv(b"[1]", "stdin"), is_csv(b"[1]", "rows.csv")
    (True, False, True)
    """
    suffix = name.lower().rpartition(".")[2]
    text = content.removeprefix(codecs.BOM_UTF8).lstrip()
    return suffix == "csv" or not (suffix == "json" or text.startswith((b"[", b"{")))


def without_names(
    body: Mapping[str, Any], signature: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The body with named rows as plain ones, where a CSV's line of names can mean nothing else.

    That is for a model with one tensor whose columns have no names (``signature`` as the control
    API shows it); None if the names are to be kept, or there are none.

    >>> signature = {"kind": "tensor", "inputs": [{"name": "x"}], "feature_names": []}
    >>> without_names({"features": [{"a": 1, "b": 2}]}, signature)
    {'features': [[1, 2]]}
    """
    rows = body["features"]
    if not isinstance(rows[0], dict) or signature is None:
        return None
    if signature.get("kind") != "tensor" or signature.get("feature_names"):
        return None
    inputs = signature.get("inputs", ())
    if len(inputs) != 1 or inputs[0].get("name") in rows[0]:
        return None
    return {**body, "features": [list(row.values()) for row in rows]}


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
