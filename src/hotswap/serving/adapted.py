"""An executor that serves the model's public signature with a version's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hotswap.core.adaptation import Adaptation
from hotswap.core.datatypes import NUMPY_OF
from hotswap.core.signature import Signature
from hotswap.ports import Array, Executor


class AdaptedExecutor:
    """Maps names, casts datatypes, stacks or splits columns; everything else is the version's."""

    def __init__(self, executor: Executor, public: Signature, adaptation: Adaptation) -> None:
        self.executor = executor
        self.signature = public
        self._adaptation = adaptation
        own = {spec.name: spec.datatype for spec in executor.signature.inputs}
        self._column = {column: NUMPY_OF[own[column]] for column in adaptation.split}
        self._own_output = {name: own for name, own, _ in adaptation.outputs}
        self._datatype = {name: NUMPY_OF[datatype] for name, _, datatype in adaptation.outputs}

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        wanted = outputs or tuple(self._own_output)
        own = self.executor.predict(self._own_inputs(inputs), [self._own_output[n] for n in wanted])
        return {
            name: own[self._own_output[name]].astype(self._datatype[name], copy=False)
            for name in wanted
        }

    def mark_shadow(self, shadow: bool) -> None:
        """Tell the version, if it wants to know (see `hotswap.ports.Executor`)."""
        mark = getattr(self.executor, "mark_shadow", None)
        if mark is not None:
            mark(shadow)

    def _own_inputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        plan = self._adaptation
        if plan.stack:
            name, _, datatype = plan.inputs[0]
            # Cast before they are joined: numpy would join columns of mixed types by way of floats.
            dtype = NUMPY_OF[datatype]
            return {name: np.column_stack([inputs[c].astype(dtype) for c in plan.stack])}
        if plan.split:
            matrix = inputs[plan.inputs[0][1]]
            return {
                column: matrix[:, at].astype(self._column[column], copy=False)
                for at, column in enumerate(plan.split)
            }
        return {
            own: inputs[public].astype(NUMPY_OF[datatype], copy=False)
            for own, public, datatype in plan.inputs
        }

    def close(self) -> None:
        self.executor.close()
