"""MLflow's and SageMaker's ``/invocations``: four JSON forms and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hotswap.core.datatypes import FLOATS
from hotswap.core.signature import TensorSpec
from hotswap.core.spec import Limits
from hotswap.errors import BadInput, TooLarge
from hotswap.ports import Array
from hotswap.server import predict
from hotswap.server.bodies import check_json
from hotswap.server.calls import (
    columns_from_lists,
    columns_from_rows,
    common_rows,
    match_names,
    tensor,
    untyped,
)
from hotswap.server.plans import Plan
from hotswap.server.tensors import show

#: How many bytes of JSON a CSV's cell counts as: reading one takes that much longer.
_CELL: Final = 8
TYPES: Final = ("application/json", "text/csv")

FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")

_MISSING: Final = frozenset({"", "nan", "na", "n/a", "null", "none"})
_WHOLE = re.compile(r"[+-]?\d{1,40}")


class Table:
    """Rows of values, with the columns' names where they are known."""

    __slots__ = ("names", "rows", "text")

    def __init__(self, names: list[str] | None, rows: list[list[Any]], text: bool = False) -> None:
        self.names = names
        self.rows = rows
        self.text = text


class Values:
    """``instances`` or ``inputs`` as they came."""

    __slots__ = ("by_column", "value")

    def __init__(self, value: Any, by_column: bool) -> None:
        self.value = value
        self.by_column = by_column


def parse(body: bytes, media: str, limits: Limits) -> Table | Values:
    """The request's form. Raises `BadInput` saying what to send."""
    if media == "text/csv":
        return _csv(body, limits)
    request = _json(body, limits)
    if not isinstance(request, dict):
        raise BadInput(f"The body must be a JSON object with one of {', '.join(FORMS)}.")
    given = [form for form in FORMS if form in request]
    if len(given) != 1:
        raise BadInput(f"The body must have exactly one of {', '.join(FORMS)}.")
    if request.get("params") not in (None, {}):
        raise BadInput("This model takes no params: leave them out.")
    for key in request:
        if key not in (*FORMS, "params"):
            raise BadInput(f"{show(key)} is not supported here: send only {given[0]}.")
    value = request[given[0]]
    if given[0] == "dataframe_split":
        return _split(value)
    if given[0] == "dataframe_records":
        return _records(value, given[0])
    if given[0] == "instances":
        if not isinstance(value, list):
            raise BadInput('"instances" must be a list.')
        if value and isinstance(value[0], dict):
            return _records(value, given[0])
    return Values(value, by_column=given[0] == "inputs")


def _json(body: bytes, limits: Limits) -> Any:
    """JSON that may hold the tokens NaN, Infinity and -Infinity."""
    check_json(body, limits)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        pass
    try:
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        reason = exc.msg if isinstance(exc, json.JSONDecodeError) else "it is damaged"
        raise BadInput(f"The body is not valid JSON: {reason}.") from None


def _split(value: Any) -> Table:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise BadInput('"dataframe_split" must be an object with "columns" and "data".')
    names = value.get("columns")
    rows = value["data"]
    unknown = value.keys() - {"columns", "data", "index"}
    if unknown:
        raise BadInput(f'"dataframe_split" has no {show(sorted(unknown)[0])}.')
    if any(not isinstance(row, list) for row in rows):
        raise BadInput('"data" must be a list of rows, each a list.')
    if names is None:
        return Table(None, rows)
    if not isinstance(names, list) or any(not isinstance(name, str | int) for name in names):
        raise BadInput('"columns" must be a list of names.')
    names = [str(name) for name in names]
    if len(set(names)) != len(names):
        raise BadInput("A column was named twice.")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise BadInput(f"Row {number} has {len(row)} values for {len(names)} columns.")
    return Table(names, rows)


def _records(value: Any, form: str) -> Table:
    if not isinstance(value, list) or any(not isinstance(row, dict) for row in value):
        raise BadInput(f'"{form}" must be a list of objects.')
    if not value:
        return Table(None, [])
    names = list(value[0])
    for number, row in enumerate(value):
        if row.keys() != value[0].keys():
            raise BadInput(f"Row {number} has other columns than the first.")
    return Table(names, [[row[name] for name in names] for row in value])


def _csv(body: bytes, limits: Limits) -> Table:
    if len(body) > limits.json_bytes:
        raise TooLarge(f"The CSV is larger than {limits.json_bytes} bytes: send several requests.")
    most = limits.json_bytes // _CELL
    cells = 0
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput("The CSV is not UTF-8.") from None
    rows: list[list[Any]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):
            if row:
                rows.append(row)
                cells += len(row)
            if cells > most:
                raise TooLarge(f"A CSV may hold {most} cells: send several requests.")
            if len(rows) > limits.rows + 1:
                raise TooLarge(f"One request may hold {limits.rows} rows.")
    except csv.Error as exc:
        raise BadInput(f"The CSV is not valid: {exc}.") from None
    if not rows:
        raise BadInput("The CSV is empty: send a header and at least one row.")
    return Table(None, rows, text=True)


def decode(parsed: Table | Values, plan: Plan, limits: Limits) -> tuple[dict[str, Array], int]:
    """The inputs and the number of rows."""
    inputs = _table(parsed, plan) if isinstance(parsed, Table) else _values(parsed, plan)
    return inputs, common_rows(inputs, limits)


def _values(parsed: Values, plan: Plan) -> dict[str, Array]:
    value = parsed.value
    if isinstance(value, dict):
        return _named(value, plan)
    if not isinstance(value, list) or not value:
        raise BadInput("Send a list of rows.")
    if isinstance(value[0], dict):
        return _table(_records(value, "inputs"), plan)
    if not plan.signature.inputs:
        return untyped("input", value)[0]
    if plan.columns:
        rows = value if isinstance(value[0], list) else [value]
        if any(not isinstance(row, list) for row in rows):
            raise BadInput("Send a list of rows, each a list.")
        return columns_from_rows(plan, rows)
    if plan.single is None:
        raise BadInput("The model takes several tensors: send them by name as inputs.")
    return {plan.single.name: _tensor(plan.single, value)}


def _tensor(spec: TensorSpec, value: Any) -> Array:
    """As `tensor`, but a flat list for an input of one value a row is many rows: MLflow's way."""
    if spec.shape[1:] == () and isinstance(value, list):
        value = [item if isinstance(item, list) else [item] for item in value]
    return tensor(spec, value)[0]


def _named(value: dict[str, Any], plan: Plan) -> dict[str, Array]:
    """``inputs`` by name: columns of values, or whole tensors."""
    if not plan.signature.inputs:
        raise BadInput("The names of this model's inputs are not known: send a list of rows.")
    if plan.columns:
        lists = {
            name: [item[0] if isinstance(item, list) and len(item) == 1 else item for item in items]
            if isinstance(items, list)
            else [items]
            for name, items in value.items()
        }
        return columns_from_lists(plan, lists)
    if plan.single is not None and len(value) == 1:
        return {plan.single.name: _tensor(plan.single, next(iter(value.values())))}
    if plan.single is not None:
        lists = {n: items if isinstance(items, list) else [items] for n, items in value.items()}
        if len({len(items) for items in lists.values()}) > 1:
            raise BadInput("The columns have different lengths.")
        rows = [list(row) for row in zip(*lists.values(), strict=True)]
        return _table(Table(list(lists), rows), plan)
    match_names(list(plan.names), value)
    return {spec.name: _tensor(spec, value[spec.name]) for spec in plan.signature.inputs}


def _table(table: Table, plan: Plan) -> dict[str, Array]:
    wanted = _column_names(plan)
    if table.text:
        table = _header(table, wanted, plan)
    rows = table.rows
    if not rows:
        raise BadInput("There is no row to predict: send at least one.")
    if table.names is not None and wanted and not _positional(table.names, wanted):
        match_names(wanted, dict.fromkeys(table.names))
        order = [table.names.index(name) for name in wanted]
        rows = [[row[at] for at in order] for row in rows]
    if table.text:
        rows = _typed(rows, plan)
    if not plan.signature.inputs:
        return untyped("input", rows)[0]
    if plan.columns:
        return columns_from_rows(plan, rows)
    if plan.single is None:
        if table.names is None:
            raise BadInput("The model takes several tensors: send them by name as inputs.")
        return predict.from_records(
            [dict(zip(table.names, row, strict=True)) for row in rows], plan
        )
    return {plan.single.name: tensor(plan.single, rows)[0]}


def _column_names(plan: Plan) -> list[str]:
    if plan.columns:
        return list(plan.names)
    return list(plan.signature.feature_names)


def _positional(names: list[str], wanted: list[str]) -> bool:
    """Whether names are only 0, 1, 2, …: pandas' own, for data that has none."""
    return set(names).isdisjoint(wanted) and names == [str(at) for at in range(len(names))]


def _header(table: Table, wanted: list[str], plan: Plan) -> Table:
    """CSV's first line as names if it is a header: not if all of it are numbers, nor if the
    model's own names are not among it and it takes strings."""
    first = table.rows[0]
    numeric = all(_is_number(cell) for cell in first)
    if numeric and not (wanted and set(first) == set(wanted)):
        return Table(None, _even(table.rows), text=True)
    rows = _even(table.rows)
    names = [cell.strip() for cell in first]
    if wanted and set(names).isdisjoint(wanted) and plan.columns and len(rows) == 1:
        return Table(None, rows, text=True)
    if len(set(names)) != len(names):
        raise BadInput("The CSV names a column twice.")
    return Table(names, rows[1:], text=True)


def _even(rows: list[list[Any]]) -> list[list[Any]]:
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise BadInput(
                f"CSV line {number + 1} has {len(row)} cells, and the first has {len(rows[0])}."
            )
    return rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _typed(rows: list[list[Any]], plan: Plan) -> list[list[Any]]:
    """CSV's text as values of the signature's datatypes."""
    if plan.columns:
        kinds = [spec.datatype for spec in plan.signature.inputs]
    else:
        kinds = [plan.single.datatype if plan.single is not None else "FP64"] * len(rows[0])
    if len(kinds) != len(rows[0]):
        raise BadInput(f"A row has {len(rows[0])} values, and the model takes {len(kinds)}.")
    return [[_cell(cell, kind) for cell, kind in zip(row, kinds, strict=True)] for row in rows]


def _cell(cell: str, datatype: str) -> Any:
    if datatype == "BYTES":
        return cell
    text = cell.strip()
    if datatype == "BOOL":
        if text.lower() in ("true", "1"):
            return True
        if text.lower() in ("false", "0"):
            return False
        raise BadInput(f"The CSV has {show(text)} where true or false is wanted.")
    if datatype in FLOATS and text.lower() in _MISSING:
        return None
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"The CSV has {show(text)} where a number is wanted.") from None


def encode(result: Mapping[str, Array]) -> bytes:
    """``{"predictions": [...]}``: one value, list or object a row."""
    return msgspec.json.encode({"predictions": predict.prediction(result)[0]})
