"""One decoded prediction request, whatever its format, and the parts that formats share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Limits
from hotswap.errors import BadInput, TooLarge, UnsupportedMedia
from hotswap.ports import Array
from hotswap.server.plans import Plan
from hotswap.server.tensors import check_shape, flatten, from_values, show

Rows = list[Any]


def check_type(content_type: bytes | None, accepted: tuple[str, ...]) -> str:
    """The media type without parameters ("" if absent), if it is one of ``accepted``.

    Raises `UnsupportedMedia` naming what to send.
    """
    if content_type is None or not content_type.strip():
        return ""
    media, _, parameters = content_type.decode("latin-1").partition(";")
    media = media.strip().lower()
    if media not in accepted:
        raise UnsupportedMedia(
            f"Content-Type {show(media)} is not accepted here: send {' or '.join(accepted)}."
        )
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        charset = value.strip().strip('"').lower()
        if key.strip().lower() == "charset" and charset not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMedia(f"The charset {show(charset)} is not supported: send utf-8.")
    return media


def check_rows(rows: int, limits: Limits) -> int:
    """``rows`` if there is at least one and not more than the limit."""
    if rows < 1:
        raise BadInput("There is no row to predict: send at least one.")
    if rows > limits.rows:
        raise TooLarge(f"{rows} rows were sent, and one request may hold {limits.rows}.")
    return rows


def common_rows(inputs: Mapping[str, Array], limits: Limits) -> int:
    """The number of rows that all inputs have. Raises `BadInput` if they differ."""
    if not inputs:
        raise BadInput("There is no input: send at least one.")
    sizes = {name: array.shape[0] if array.ndim else 0 for name, array in inputs.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{show(name)} {size}" for name, size in list(sizes.items())[:8])
        raise BadInput(f"The inputs have different numbers of rows: {listed}.")
    return check_rows(next(iter(sizes.values())), limits)


def column(spec: TensorSpec, values: list[Any]) -> Array:
    """One value a row as the input that ``spec`` describes, shape ``(rows,)`` or ``(rows, 1)``."""
    for value in values:
        if isinstance(value, list | dict):
            raise BadInput(f"Input {show(spec.name)} takes one value a row, not a list or object.")
    array = from_values(spec.name, values, spec.datatype)
    return array.reshape((len(values), *(1 for _ in spec.shape[1:])))


def columns_from_rows(plan: Plan, rows: list[Rows]) -> dict[str, Array]:
    """Rows of plain values, in the signature's order, as its columns."""
    specs = plan.signature.inputs
    for number, row in enumerate(rows):
        if len(row) != len(specs):
            raise BadInput(
                f"Row {number} has {len(row)} values, and the model takes {len(specs)}: "
                f"{listed([spec.name for spec in specs])}."
            )
    return {spec.name: column(spec, [row[at] for row in rows]) for at, spec in enumerate(specs)}


def columns_from_lists(plan: Plan, named: Mapping[str, list[Any]]) -> dict[str, Array]:
    """Lists of values by column name as the model's columns. Names must be exactly its own."""
    match_names([spec.name for spec in plan.signature.inputs], named)
    sizes = {len(values) for values in named.values()}
    if len(sizes) > 1:
        raise BadInput("The columns have different lengths.")
    return {spec.name: column(spec, named[spec.name]) for spec in plan.signature.inputs}


def match_names(wanted: Sequence[str], given: Mapping[str, Any]) -> None:
    """Raise `BadInput` naming what is missing or unknown, unless ``given`` has just ``wanted``."""
    missing = [name for name in wanted if name not in given]
    known = set(wanted)
    unknown = [name for name in given if name not in known]
    if missing:
        raise BadInput(f"Missing: {listed(missing)}. The model takes {listed(wanted)}.")
    if unknown:
        raise BadInput(f"Unknown: {listed(unknown)}. The model takes {listed(wanted)}.")


def listed(names: Sequence[str]) -> str:
    """Names as a sentence's list, at most twenty.

    >>> listed(["a", "b"])
    "'a', 'b'"
    """
    shown = ", ".join(show(name) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"


def tensor(spec: TensorSpec, data: object) -> tuple[Array, bool]:
    """Nested JSON values as the input ``spec``, and whether they were one row alone.

    The rank tells: as many dimensions as a row has, and it is one row.
    """
    values, shape = flatten(spec.name, data)
    alone = len(shape) == len(spec.shape) - 1
    if spec.shape[1:] == () and shape and len(shape) == 1:
        # One value a row: a flat list is one row, as everywhere else.
        alone = True
        if shape != (1,):
            raise BadInput(
                f"Input {show(spec.name)} takes one value a row, and {shape[0]} were sent: "
                "send [[..], [..]] for several rows."
            )
        shape = ()
    if spec.shape[1:] == () and len(shape) == 2 and shape[1] == 1:
        shape = shape[:1]
    if alone:
        shape = (1, *shape)
    check_shape(spec.name, shape, spec.shape)
    return from_values(spec.name, values, spec.datatype).reshape(shape), alone


def untyped(name: str, data: object) -> tuple[dict[str, Array], bool]:
    """Values for a model whose inputs nobody knows: floats, or strings if all are."""
    values, shape = flatten(name, data)
    text = bool(values) and set(map(type, values)) == {str}
    alone = len(shape) < 2
    array = from_values(name, values, "BYTES" if text else "FP64")
    return {name: array.reshape((1, *shape) if alone else shape)}, alone


def refuse_half_floats(signature: Signature, names: Sequence[str]) -> None:
    """Raise `BadInput` if an output that JSON cannot carry was asked for in JSON."""
    for spec in signature.outputs:
        if spec.datatype in ("FP16", "BF16") and (not names or spec.name in names):
            raise BadInput(
                f"Output {show(spec.name)} is {spec.datatype}, which JSON cannot carry: ask for it "
                'with the parameter "binary_data": true.'
            )
