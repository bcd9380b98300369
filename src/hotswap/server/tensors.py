"""Tensors from JSON lists and raw bytes, cast safely to what the model takes; and back.

A cast is safe if no value changes its meaning: whole numbers go to floats, floats to integers
only without a fraction, and nothing may leave the target's range. JSON's ``null`` is NaN in a
float input. Sizes are computed with Python's integers and checked before anything is allocated.
"""

from __future__ import annotations

import itertools
import math
import struct
import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from hotswap.core.datatypes import FLOATS, NUMPY_OF, OIP_OF
from hotswap.core.signature import TensorSpec
from hotswap.errors import BadInput, TooLarge
from hotswap.ports import Array

MAX_DIMS: Final = 32
MAX_ELEMENTS: Final = 2**40
#: Elements of a raw BYTES tensor, which are read one by one.
MAX_TEXTS: Final = 2**21

_LENGTH: Final = struct.Struct("<I")
_NUMBERS: Final = frozenset({int, float})


def show(name: str) -> str:
    """A client's own word as it is quoted back: cut short."""
    return repr(name if len(name) <= 80 else name[:79] + "…")


def element_count(name: str, shape: Sequence[Any]) -> int:
    """How many elements ``shape`` holds. Raises `BadInput` for what is no shape."""
    if len(shape) > MAX_DIMS:
        raise BadInput(f"Input {show(name)}: a shape has at most {MAX_DIMS} dimensions.")
    count = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise BadInput(
                f"Input {show(name)}: a shape holds whole numbers from 0 up, and one is not."
            )
        count *= size
        if count > MAX_ELEMENTS:
            raise BadInput(f"Input {show(name)}: the shape holds too many elements.")
    return count


def shape_fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether ``shape`` is what the signature wants, -1 standing for any size.

    >>> shape_fits((2, 30), (-1, 30)), shape_fits((30,), (-1, 30))
    (True, False)
    """
    return len(shape) == len(wanted) and all(
        want < 0 or size == want for size, want in zip(shape, wanted, strict=True)
    )


def check_shape(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raise `BadInput` naming both shapes, unless ``shape`` fits ``wanted``."""
    if not shape_fits(shape, wanted):
        raise BadInput(
            f"Input {show(name)} must have the shape {list(wanted)} (-1: any size), "
            f"but its shape is {list(shape)}."
        )


def known_datatype(name: str, datatype: object) -> str:
    """``datatype`` if it is one of the protocol's. Raises `BadInput` otherwise."""
    if not isinstance(datatype, str) or datatype not in NUMPY_OF:
        shown = show(datatype) if isinstance(datatype, str) else "missing or no text"
        raise BadInput(
            f"Input {show(name)}: the datatype is {shown}; use one of {', '.join(NUMPY_OF)}."
        )
    return datatype


def flatten(name: str, data: object) -> tuple[list[Any], tuple[int, ...]]:
    """A nested list's leaves in row-major order, and its shape (a scalar's is ``()``).

    Raises `BadInput` if it is ragged or too deep.
    """
    if not isinstance(data, list):
        return [data], ()
    level: list[Any] = data
    shape = [len(level)]
    while True:
        kinds = set(map(type, level))
        if list not in kinds:
            return level, tuple(shape)
        sizes = set(map(len, level)) if len(kinds) == 1 else set()
        if len(sizes) != 1 or len(shape) >= MAX_DIMS:
            raise BadInput(f"Input {show(name)}: the nested lists are not all of one shape.")
        shape.append(sizes.pop())
        level = list(itertools.chain.from_iterable(level))


def from_values(name: str, values: list[Any], datatype: str) -> Array:
    """JSON values (no lists among them) as a 1-d array of ``datatype``.

    Raises `BadInput` for values of another kind, out of range, or with a fraction that would
    be lost.
    """
    if datatype == "BF16":
        raise BadInput(
            f"Input {show(name)} is BF16, which JSON cannot carry: send it as raw bytes."
        )
    kinds = set(map(type, values))
    if datatype == "BYTES":
        return _texts(name, values, kinds)
    if datatype == "BOOL":
        if not kinds <= {bool, int} or any(value not in (0, 1) for value in values):
            raise BadInput(f"Input {show(name)} takes true and false.")
        return np.array(values, dtype=np.bool_)
    if datatype in FLOATS:
        return _floats(name, values, kinds, datatype)
    return _integers(name, values, kinds, datatype)


def _texts(name: str, values: list[Any], kinds: set[type]) -> Array:
    if kinds - {str}:
        raise BadInput(f"Input {show(name)} takes strings, and {_kind(kinds - {str})} was sent.")
    array = np.empty(len(values), dtype=np.object_)
    try:
        array[:] = [value.encode("utf-8") for value in values]
    except UnicodeEncodeError:
        raise BadInput(f"Input {show(name)}: a string is not valid Unicode.") from None
    return array


def _floats(name: str, values: list[Any], kinds: set[type], datatype: str) -> Array:
    wrong = kinds - _NUMBERS - {type(None)}
    if wrong:
        raise BadInput(f"Input {show(name)} takes numbers, and {_kind(wrong)} was sent.")
    try:
        array: Array = np.array(values, dtype=np.float64)
    except OverflowError:
        raise BadInput(_out_of_range(name, datatype)) from None
    return array if datatype == "FP64" else _narrow(name, array, datatype)


def _integers(name: str, values: list[Any], kinds: set[type], datatype: str) -> Array:
    wrong = kinds - _NUMBERS
    if wrong:
        raise BadInput(f"Input {show(name)} takes whole numbers, and {_kind(wrong)} was sent.")
    if float in kinds:
        values = [_whole(name, value) for value in values]
    limits = np.iinfo(NUMPY_OF[datatype])
    if values and (min(values) < limits.min or max(values) > limits.max):
        raise BadInput(_out_of_range(name, datatype))
    return np.array(values, dtype=NUMPY_OF[datatype])


def _whole(name: str, value: float) -> int:
    if not math.isfinite(value) or value != math.floor(value):
        raise BadInput(f"Input {show(name)} takes whole numbers, and one has a fraction.")
    return int(value)


def _kind(kinds: set[type]) -> str:
    names = {str: "text", bool: "true or false", type(None): "null", dict: "an object"}
    names |= {list: "a list", int: "a number", float: "a number", bytes: "text"}
    return names.get(sorted(kinds, key=lambda kind: kind.__name__)[0], "something else")


def _out_of_range(name: str, datatype: str) -> str:
    return f"Input {show(name)} holds a number outside the range of {datatype}."


def _narrow(name: str, array: Array, datatype: str) -> Array:
    """Floats to narrower floats; NaN and infinity stay, a finite number must stay finite."""
    with np.errstate(over="ignore"):
        result = array.astype(NUMPY_OF[datatype])
    if np.isinf(result).sum() != np.isinf(array).sum():
        raise BadInput(_out_of_range(name, datatype))
    return result


def cast(name: str, array: Array, sent: str, wanted: str) -> Array:
    """An array of datatype ``sent`` as ``wanted``. Raises `BadInput` if a value would change."""
    if sent == wanted:
        return array
    if "BYTES" in (sent, wanted) or "BF16" in (sent, wanted) or "BOOL" in (sent, wanted):
        raise BadInput(f"Input {show(name)} is {wanted}, and {sent} was sent.")
    if wanted in FLOATS:
        with np.errstate(over="ignore"):
            result = array.astype(NUMPY_OF[wanted])
        if np.isinf(result).sum() != (np.isinf(array).sum() if sent in FLOATS else 0):
            raise BadInput(_out_of_range(name, wanted))
        return result
    if sent in FLOATS and not (np.isfinite(array) & (np.floor(array) == array)).all():
        raise BadInput(f"Input {show(name)} takes whole numbers, and one has a fraction.")
    limits = np.iinfo(NUMPY_OF[wanted])
    if array.size:
        # Compared as Python's integers: numpy would round 2**63 - 1 to a float.
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise BadInput(_out_of_range(name, wanted))
    return array.astype(NUMPY_OF[wanted])


def from_raw(name: str, raw: memoryview, datatype: str, shape: tuple[int, ...]) -> Array:
    """Raw little-endian, row-major bytes as an array of ``shape``.

    Raises `BadInput` if the number of bytes does not fit. The array is aligned; it may be
    read-only.
    """
    count = element_count(name, shape)
    if datatype == "BYTES":
        return _raw_texts(name, raw, count).reshape(shape)
    dtype = NUMPY_OF[datatype]
    if count * dtype.itemsize != len(raw):
        raise BadInput(
            f"Input {show(name)}: {len(raw)} bytes were sent, and {datatype} with the shape "
            f"{list(shape)} is {count * dtype.itemsize}."
        )
    if datatype == "BOOL":
        flags: Array = np.frombuffer(raw, dtype=np.uint8) != 0
        return flags.reshape(shape)
    array: Array = np.frombuffer(raw, dtype=dtype.newbyteorder("<"))
    if sys.byteorder == "big" or not array.flags.aligned:
        array = array.astype(dtype)
    return array.reshape(shape)


def _raw_texts(name: str, raw: memoryview, count: int) -> Array:
    # Each element takes at least its four bytes of length: bounds the allocation.
    if count * 4 > len(raw):
        raise BadInput(f"Input {show(name)}: the raw BYTES end before {count} elements.")
    if count > MAX_TEXTS:
        raise TooLarge(f"Input {show(name)}: one request may hold {MAX_TEXTS} BYTES elements.")
    values: list[bytes] = []
    at, end = 0, len(raw)
    for _ in range(count):
        if at + 4 > end:
            raise BadInput(f"Input {show(name)}: the raw BYTES end before {count} elements.")
        (size,) = _LENGTH.unpack_from(raw, at)
        at += 4
        if size > end - at:
            raise BadInput(f"Input {show(name)}: a BYTES element is longer than what was sent.")
        values.append(bytes(raw[at : at + size]))
        at += size
    if at != end:
        raise BadInput(f"Input {show(name)}: {end - at} raw bytes are left over.")
    array = np.empty(count, dtype=np.object_)
    array[:] = values
    return array


def output_datatype(array: Array, spec: TensorSpec | None) -> str:
    """The protocol's name for an output: the array's own, BF16 only where the signature says."""
    if spec is not None and spec.datatype == "BF16" and array.dtype == np.uint16:
        return "BF16"
    return OIP_OF.get(array.dtype, "BYTES")


def outgoing(array: Array) -> Array:
    """An output in a dtype that the protocol has: foreign byte orders and long doubles are
    converted, anything else becomes strings."""
    dtype = array.dtype
    if dtype in OIP_OF or dtype.kind in "OUS":
        return array
    if dtype.kind in "fiub":
        native = dtype.newbyteorder("=")
        return array.astype(native if native in OIP_OF else np.float64)
    texts = np.empty(array.size, dtype=np.object_)
    texts[:] = [str(value) for value in array.ravel().tolist()]
    return texts.reshape(array.shape)


def _as_text(value: object) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str | bool | int | float):
        return value if not isinstance(value, str) else value.encode("utf-8", "replace").decode()
    return str(value)


def to_values(array: Array) -> Any:
    """An output as (nested) JSON values; `msgspec` writes NaN and infinities as null.

    BYTES become strings; what is not UTF-8 has U+FFFD in its place (ask for raw to get it all).
    """
    kind = array.dtype.kind
    if kind in "fiub":
        return array.tolist()
    texts = [_as_text(value) for value in array.ravel().tolist()]
    shaped = np.empty(len(texts), dtype=np.object_)
    shaped[:] = texts
    return shaped.reshape(array.shape).tolist()


def to_raw(array: Array) -> bytes:
    """An output's raw little-endian, row-major bytes; BYTES with a length before each."""
    if array.dtype.kind in "OUS":
        parts: list[bytes] = []
        for value in array.ravel().tolist():
            text = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
            parts.append(_LENGTH.pack(len(text)))
            parts.append(text)
        return b"".join(parts)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
