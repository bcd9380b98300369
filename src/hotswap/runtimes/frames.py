"""Arrays from the wire as models want them: text decoded, columns in a data frame, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hotswap.core.datatypes import NUMPY_OF
from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import InvalidOutput
from hotswap.ports import Array
from hotswap.runtimes.packages import require
from hotswap.runtimes.samples import as_bytes


def decoded(array: Array) -> Array:
    """An object array of `bytes` as one of `str` (UTF-8); others as they are."""
    if array.dtype.kind != "O":
        return array
    out = np.empty(array.size, dtype=object)
    out[:] = [
        item.decode("utf-8") if isinstance(item, bytes) else item for item in array.ravel().tolist()
    ]
    return out.reshape(array.shape)


def frame(signature: Signature, inputs: Mapping[str, Array]) -> Any:
    """A pandas data frame of a ``table`` signature's columns, in their order."""
    pandas = require("pandas", "pandas", "sklearn")
    return pandas.DataFrame(
        {spec.name: decoded(inputs[spec.name]) for spec in signature.inputs}, copy=False
    )


def as_output(values: Any, spec: TensorSpec) -> Array:
    """What a model returned, as an array of the spec's datatype."""
    if spec.datatype == "BYTES":
        return as_bytes(np.asarray(values))
    return np.asarray(values, dtype=NUMPY_OF[spec.datatype])


def wanted(signature: Signature, outputs: Any) -> list[TensorSpec]:
    """The specs of the requested outputs, all if none is named. Raises `InvalidOutput`."""
    if not outputs:
        return list(signature.outputs)
    known = {spec.name: spec for spec in signature.outputs}
    missing = [name for name in outputs if name not in known]
    if missing:
        raise InvalidOutput(
            f"the model has no output {missing[0]!r}; it has: {', '.join(known) or 'none known'}"
        )
    return [known[name] for name in outputs]
