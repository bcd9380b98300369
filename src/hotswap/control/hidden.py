"""Inputs that are never shown, by every name that they may have been recorded by.

Records from before a column was redacted still have it, and what is said of a tensor is said of all
its features.
"""

from __future__ import annotations

from typing import Final

from hotswap.control.recorded import Recorded
from hotswap.core.signature import Signature

#: So many places are hidden where nothing tells how many features there are.
_PLACES: Final = 1024


def hidden_inputs(recorded: Recorded, signature: Signature | None) -> tuple[str, ...]:
    """The names of columns, without ``input_``; ``signature``: of the model, None if unknown."""
    said = (*recorded.redacted, *recorded.hashed)
    if not said or signature is None or len(signature.inputs) != 1 or signature.kind == "table":
        return said
    tensor, names = signature.inputs[0], signature.feature_names
    if len(tensor.shape) != 2:
        return said
    whole = tensor.name in said
    size = tensor.shape[1] if tensor.shape[1] >= 0 else len(names) or _PLACES
    found = list(said)
    for at in range(size if whole else min(size, len(names))):
        place = f"x{at}"  # as they were recorded before the features had names
        name = names[at] if at < len(names) else place
        if whole or name in said:
            found += [name, *([place] if place not in names else [])]
    return tuple(dict.fromkeys(found))


__all__ = ["hidden_inputs"]
