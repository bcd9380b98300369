"""``hotswap models convert``: to formats that run no code. It needs no server."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hotswap.cli import output
from hotswap.cli.client import AsJson, CommandFailed

if TYPE_CHECKING:
    from hotswap.core.spec import VersionSettings


def convert(
    path: Annotated[
        Path, typer.Argument(help="Model file, or a version's folder.", metavar="PATH")
    ],
    out: Annotated[
        Path,
        typer.Argument(help="File to write; its ending, .skops or .onnx, says as what."),
    ],
    samples: Annotated[
        Path | None,
        typer.Option(
            "--samples",
            help="Rows (.json, .npy, .npz, .csv) that both models must answer alike, for ONNX.",
            metavar="FILE",
        ),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option("--runtime", help="What runs the model, if it is not plain.")
    ] = None,
    atol: Annotated[
        float | None, typer.Option("--atol", help="Absolute difference allowed, for ONNX.", min=0)
    ] = None,
    rtol: Annotated[
        float | None, typer.Option("--rtol", help="Relative difference allowed, for ONNX.", min=0)
    ] = None,
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code",
            envvar="HOTSWAP_TRUST_CODE",
            help="Load a pickle or joblib file, which can run code when it is loaded.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a model to skops (scikit-learn) or ONNX (scikit-learn, XGBoost, LightGBM).

    For ONNX both models answer the same rows, and the command fails if they differ.
    """
    kind = out.suffix.lower()
    if kind not in (".skops", ".onnx"):
        raise CommandFailed(f"'{out}' must end with .skops or .onnx, which says what to write")
    if out.exists() and not force:
        raise CommandFailed(f"'{out}' exists already: choose another name, or add --force")
    if not out.absolute().parent.is_dir():
        raise CommandFailed(f"there is no folder {out.parent} to write to")
    with _staged(path, samples) as folder, output.spinner(f"converting {path}", as_json):
        settings = _settings(folder, samples, atol, rtol)
        artifact = _artifact(folder, runtime or settings.runtime, trust_code)
        written = folder / "out" / f"model{kind}"
        written.parent.mkdir()
        report = _converted(kind, artifact, settings, written)
        shutil.copyfile(written, out)
    _show(out, report, as_json)


@contextlib.contextmanager
def _staged(path: Path, samples: Path | None) -> Iterator[Path]:
    """A temporary folder with the model, its version.yaml and the samples, and nothing else.

    So a conversion never writes beside an artifact, and one file of a folder can be chosen.
    """
    if not path.exists():
        raise CommandFailed(f"'{path}' does not exist")
    if samples is not None and not samples.is_file():
        raise CommandFailed(f"the samples '{samples}' are no file")
    with tempfile.TemporaryDirectory(prefix="hotswap-convert-") as temporary:
        folder = Path(temporary) / "model"
        try:
            if path.is_dir():
                shutil.copytree(path, folder)
            else:
                folder.mkdir()
                shutil.copyfile(path, folder / path.name)
                beside = path.parent / "version.yaml"
                if beside.is_file():
                    shutil.copyfile(beside, folder / beside.name)
            if samples is not None:
                shutil.copyfile(samples, folder / samples.name)
        except OSError as problem:
            raise CommandFailed(f"'{path}' cannot be read: {problem.strerror}") from None
        yield folder


def _settings(
    folder: Path, samples: Path | None, atol: float | None, rtol: float | None
) -> VersionSettings:
    import msgspec

    from hotswap.sources.settings import read_version_yaml

    given: dict[str, Any] = {
        "samples": samples.name if samples is not None else None,
        "parity_atol": atol,
        "parity_rtol": rtol,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return msgspec.structs.replace(read_version_yaml(folder), **changes)


def _artifact(folder: Path, wanted: str | None, trust_code: bool) -> Any:
    from hotswap.core.spec import Artifact
    from hotswap.errors import UntrustedCode
    from hotswap.plugins import find_runtime

    runtime, entry = find_runtime(folder, wanted)
    if runtime.runs_code(folder, entry) is not None and not trust_code:
        raise UntrustedCode(
            f"{entry} can run code that it carries when it is loaded: add --trust-code if you "
            "trust where it comes from"
        )
    return Artifact(str(folder), entry, runtime.name, "")


def _converted(kind: str, artifact: Any, settings: VersionSettings, out: Path) -> Any:
    """The parity report for ONNX; None for skops, which holds the very same objects."""
    from hotswap.runtimes.convert import to_onnx, to_skops

    if kind == ".onnx":
        return to_onnx(artifact, settings, None, out)
    if artifact.runtime != "sklearn":
        raise CommandFailed(
            f"skops holds scikit-learn models, and this is one of the runtime {artifact.runtime}"
        )
    to_skops(artifact, out)
    return None


def _show(out: Path, report: Any, as_json: bool) -> None:
    if as_json:
        import msgspec

        parity = None if report is None else msgspec.to_builtins(report)
        output.emit({"out": str(out), "parity": parity})
        return
    output.say("wrote ", (str(out), "bold green"))
    if report is not None:
        output.say(
            f"both models answer {report.rows} rows alike: largest difference "
            f"{report.worst_absolute:.3g} (relative {report.worst_relative:.3g}), "
            f"at row {report.worst_row}"
        )
