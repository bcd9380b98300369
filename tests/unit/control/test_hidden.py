"""By which names inputs that are redacted or hashed may lie in records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hotswap.control.hidden import hidden_inputs
from hotswap.control.recorded import Recorded
from hotswap.core.signature import Signature, TensorSpec

OUTPUTS = (TensorSpec("y", "FP64", (-1,)),)
PAIR = Signature((TensorSpec("x", "FP64", (-1, 2)),), OUTPUTS)
NAMED = Signature(PAIR.inputs, OUTPUTS, feature_names=("age", "zip"))
ODD = Signature(PAIR.inputs, OUTPUTS, feature_names=("age", "x0"))
IMAGE = Signature((TensorSpec("x", "FP64", (-1, 2, 2)),), OUTPUTS)
TWO = Signature((*PAIR.inputs, TensorSpec("z", "FP64", (-1,))), OUTPUTS)
TABLE = Signature((TensorSpec("x", "FP64", (-1,)),), OUTPUTS, kind="table")


@pytest.mark.parametrize(
    ("signature", "redacted", "hashed", "hidden"),
    [
        (NAMED, (), (), ()),
        (NAMED, ("x",), (), ("x", "age", "x0", "zip", "x1")),
        (NAMED, (), ("x",), ("x", "age", "x0", "zip", "x1")),
        (NAMED, ("zip",), ("other",), ("zip", "other", "x1")),
        (PAIR, ("x",), (), ("x", "x0", "x1")),
        (PAIR, ("x1",), (), ("x1",)),
        (ODD, ("age",), (), ("age",)),
        (IMAGE, ("x",), (), ("x",)),
        (TWO, ("x",), (), ("x",)),
        (TABLE, ("x",), (), ("x",)),
        (None, ("x",), (), ("x",)),
    ],
)
def test_a_tensors_name_stands_for_all_its_features(
    signature: Signature | None,
    redacted: tuple[str, ...],
    hashed: tuple[str, ...],
    hidden: tuple[str, ...],
) -> None:
    """Named, or by place, as before they had names."""
    jobs: Any = None
    recorded = Recorded(
        Path(), None, jobs, jobs, lambda: 0.0, dict, lambda: jobs, redacted=redacted, hashed=hashed
    )
    assert hidden_inputs(recorded, signature) == hidden


def test_of_any_number_of_features_all_places_are_hidden() -> None:
    """As many as are columns of their own."""
    jobs: Any = None
    recorded = Recorded(Path(), None, jobs, jobs, lambda: 0.0, dict, lambda: jobs, redacted=("x",))
    found = hidden_inputs(recorded, Signature((TensorSpec("x", "FP64", (-1, -1)),), OUTPUTS))
    assert (found[:2], found[-1]) == (("x", "x0"), "x1023")
