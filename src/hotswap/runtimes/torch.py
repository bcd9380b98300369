"""PyTorch programs: torch.export (``.pt2``) and TorchScript (``.pt``)."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from hotswap.core.datatypes import FLOATS, NUMPY_OF, datatype_of
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.errors import LoadError, MissingDependency
from hotswap.ports import Array
from hotswap.runtimes.entries import pick
from hotswap.runtimes.fixed_batch import in_batches
from hotswap.runtimes.frames import wanted
from hotswap.runtimes.packages import require
from hotswap.runtimes.samples import generated_samples, load_samples
from hotswap.runtimes.signatures import INPUT, untold
from hotswap.runtimes.trust import sentence

_OLDEST: Final = (2, 6)
"""Before it, loading "weights only" ran code all the same (CVE-2025-32434)."""

_DATATYPES: Final = {
    "torch.bool": "BOOL",
    "torch.uint8": "UINT8",
    "torch.int8": "INT8",
    "torch.int16": "INT16",
    "torch.int32": "INT32",
    "torch.int64": "INT64",
    "torch.float16": "FP16",
    "torch.float32": "FP32",
    "torch.float64": "FP64",
}


class TorchRuntime:
    """Loads whole programs only: a pickled module or bare weights are refused, trusted or not."""

    name = "torch"
    platform = "pytorch_torchscript"
    extra = "torch"
    files = ("model.pt2", "model.pt")

    def entry(self, folder: Path) -> str | None:
        """``model.pt2`` before ``model.pt``, or the only such file."""
        return pick(folder, (".pt2", ".pt"), lambda start: start.startswith(b"PK"))

    def runs_code(self, folder: Path, entry: str) -> str | None:
        """All of torch's own formats can: torch.export.load unpickles weights and examples."""
        if entry.endswith(".pt2"):
            return sentence(f"{entry} is a torch.export archive, which holds pickles and")
        return sentence(f"{entry} is TorchScript or a torch pickle, which")

    def preload(self) -> None:
        """Import torch."""
        require("torch", "PyTorch", self.extra)

    def load(self, artifact: Artifact, settings: VersionSettings) -> TorchExecutor:
        """Read the program; torch uses ``settings.threads`` threads in this process."""
        folder = Path(artifact.folder)
        path = folder / artifact.entry
        torch = require("torch", "PyTorch", self.extra)
        require_safe(str(torch.__version__))
        kind = _kind(path)
        torch.set_num_threads(settings.threads)
        try:
            if kind == "export":
                program = require("torch.export", "PyTorch", self.extra).load(path)
                return TorchExecutor(torch, *_exported(program))
            module = torch.jit.load(str(path), map_location="cpu").eval()
        except LoadError:
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0].replace(str(folder), ".")
            raise LoadError(f"torch cannot load {path.name}: {reason}") from error
        signature = untold(folder, settings)
        if settings.signature is None:
            signature = _in_precision_of(module, signature)
        executor = TorchExecutor(torch, module, signature, None)
        executor.learn(folder, settings)
        return executor


class TorchExecutor:
    """One program under inference mode.

    Outputs: ``output`` of a lone tensor, ``output_0`` … of a tuple, a dict's own keys. A program
    exported with a fixed batch is run on as many rows as it takes, the last ones padded.
    """

    signature: Signature

    def __init__(self, torch: Any, module: Any, signature: Signature, batch: int | None) -> None:
        self._torch, self._module, self._batch = torch, module, batch
        self.signature = signature
        parameter = next(iter(module.parameters()), None) if not signature.inputs else None
        self._dtype = NUMPY_OF.get(_DATATYPES.get(str(getattr(parameter, "dtype", "")), "FP32"))

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """One forward pass for all rows (several where the batch is fixed)."""
        arrays = self._arrays(inputs)
        if self._batch is None:
            found = self._forward(arrays)
        else:
            found = in_batches(self._forward, arrays, self._batch)
        if self.signature.outputs:
            return {spec.name: found[spec.name] for spec in wanted(self.signature, outputs)}
        return {name: found[name] for name in outputs or found}

    def close(self) -> None:
        """The program goes with its last reference."""

    def learn(self, folder: Path, settings: VersionSettings) -> None:
        """Learn the outputs by running it, on samples or, if it takes them, on made-up rows."""
        if self.signature.outputs:
            return
        rows = load_samples(folder, settings, self.signature)
        if rows is None:
            rows = generated_samples(self.signature, 2)
        if rows is None:
            return
        try:
            found = self._forward(self._arrays(rows))
        except Exception:
            if settings.samples is not None:
                raise
            return  # made-up rows need not suit the model: validation will tell
        outputs = tuple(
            TensorSpec(name, datatype_of(array.dtype), (-1, *array.shape[1:]))
            for name, array in found.items()
        )
        self.signature = msgspec.structs.replace(self.signature, outputs=outputs, learned=True)

    def _arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if not self.signature.inputs:
            return {INPUT: np.ascontiguousarray(inputs[INPUT], dtype=self._dtype)}
        return {
            spec.name: np.ascontiguousarray(inputs[spec.name], dtype=NUMPY_OF[spec.datatype])
            for spec in self.signature.inputs
        }

    def _forward(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        torch = self._torch
        with torch.inference_mode():
            tensors = [
                torch.from_numpy(array if array.flags.writeable else array.copy())
                for array in arrays.values()
            ]
            answers = named(self._module(*tensors))
            return {name: tensor.detach().numpy() for name, tensor in answers.items()}


def _in_precision_of(module: Any, signature: Signature) -> Signature:
    """What samples show, in the program's own precision: JSON and CSV know no FP32."""
    datatype = _DATATYPES.get(str(getattr(next(iter(module.parameters()), None), "dtype", "")))
    if datatype not in FLOATS:
        return signature
    replace = msgspec.structs.replace
    inputs = [
        replace(spec, datatype=datatype) if spec.datatype == "FP64" else spec
        for spec in signature.inputs
    ]
    return replace(signature, inputs=tuple(inputs))


def named(values: Any) -> dict[str, Any]:
    """What a program returned, by output name."""
    if isinstance(values, Mapping):
        return dict(values)
    if isinstance(values, (tuple, list)):
        if len(values) == 1:
            return {"output": values[0]}
        return {f"output_{index}": value for index, value in enumerate(values)}
    return {"output": values}


def require_safe(version: str) -> None:
    """Raise `MissingDependency` for a torch whose loaders are known to be unsafe."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _OLDEST:
        raise MissingDependency(
            f"torch {version} loads files unsafely (CVE-2025-32434); install a newer one with: "
            "pip install 'hotswap[torch]'"
        )


def _kind(path: Path) -> str:
    """``export`` or ``script``, by what the archive holds; the suffix must agree."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise LoadError(
            f"{path.name} is not a whole torch archive ({error}); save the model with "
            "torch.export.save or torch.jit.save"
        ) from None
    exported = any(name.startswith("models/") and name.endswith(".json") for name in names)
    if exported or "serialized_exported_program.json" in names:
        kind, suffix = "export", ".pt2"
    elif "constants.pkl" in names and any(name.startswith("code/") for name in names):
        kind, suffix = "script", ".pt"
    else:
        raise LoadError(
            f"{path.name} is a pickled torch module or bare weights, not a program; save the model "
            "with torch.export.save (model.pt2) or torch.jit.save (model.pt)"
        )
    if path.suffix in (".pt", ".pt2") and path.suffix != suffix:
        raise LoadError(f"{path.name} does not hold what its suffix says: name it model{suffix}")
    return kind


def _exported(program: Any) -> tuple[Any, Signature, int | None]:
    """The callable of an exported program, its signature, and its batch if that is fixed."""
    pytree = require("torch.utils._pytree", "PyTorch", "torch")
    names = list(program.graph_signature.user_inputs)
    args, kwargs = pytree.tree_unflatten(list(range(len(names))), program.call_spec.in_spec)
    if kwargs or list(args) != list(range(len(names))):
        raise LoadError("an exported program must take its tensors as plain positional arguments")
    nodes = {node.name: node for node in program.graph.nodes}
    values = [nodes[name].meta["val"] for name in names]
    inputs = tuple(_spec(name, value) for name, value in zip(names, values, strict=True))
    leaves = next(node for node in program.graph.nodes if node.op == "output").args[0]
    produced = leaves[-len(program.graph_signature.user_outputs) :]
    answers = [leaf.meta["val"] for leaf in produced]
    tree = named(pytree.tree_unflatten(answers, program.call_spec.out_spec))
    outputs = tuple(_spec(name, value) for name, value in tree.items())
    batches = {int(value.shape[0]) for value in values if isinstance(value.shape[0], int)}
    if len(batches) > 1:
        raise LoadError("an exported program's inputs must all have the same number of rows")
    return program.module(), Signature(inputs, outputs), batches.pop() if batches else None


def _spec(name: str, value: Any) -> TensorSpec:
    datatype = _DATATYPES.get(str(getattr(value, "dtype", None)))
    if datatype is None or len(value.shape) == 0:
        raise LoadError(f"the exported program's {name!r} is no tensor of rows that can be served")
    sizes = [size if isinstance(size, int) else -1 for size in value.shape]
    return TensorSpec(name, datatype, (-1, *sizes[1:]))
