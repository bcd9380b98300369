"""The Open Inference Protocol's datatypes and their numpy counterparts.

``BYTES`` is carried as a numpy object array of `bytes`. ``BF16`` has no numpy counterpart:
it is carried as ``uint16`` words (raw only), as the protocol's binary extension has it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

NUMPY_OF: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.uint16),
    "BYTES": np.dtype(np.object_),
}

OIP_OF: Final[dict[np.dtype[Any], str]] = {
    dtype: name for name, dtype in NUMPY_OF.items() if name != "BF16"
}

INTEGERS: Final = frozenset(name for name, dtype in NUMPY_OF.items() if dtype.kind in "iu") - {
    "BF16"
}

FLOATS: Final = frozenset({"FP16", "FP32", "FP64", "BF16"})


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name for a numpy dtype; strings and objects are ``BYTES``.

    >>> datatype_of(np.dtype("float32"))
    'FP32'
    >>> datatype_of(np.dtype("<U5"))
    'BYTES'
    """
    if dtype.kind in "OUS":
        return "BYTES"
    try:
        return OIP_OF[dtype.newbyteorder("=")]
    except KeyError:
        raise ValueError(f"there is no protocol datatype for numpy's {dtype}") from None
