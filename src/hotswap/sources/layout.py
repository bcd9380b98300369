"""How a models folder is laid out: ``MODELS/<model>/<version>/…`` or ``MODELS/<version>/…``.

Pure but for reading folders. A folder that cannot be read raises `OSError`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from hotswap.core.naming import check_name
from hotswap.errors import BadInput

DEFAULT_MODEL: Final = "default"
Layout = Literal["models", "versions"]

_SKIPPED_SUFFIXES: Final = (".tmp", ".partial", ".part", ".incomplete", "~")
_SKIPPED: Final = ("__pycache__", "lost+found")
_SURE_SUFFIXES: Final = (
    ".joblib",
    ".pkl",
    ".pickle",
    ".skops",
    ".onnx",
    ".ubj",
    ".pt",
    ".pth",
    ".pt2",
    ".tar.gz",
    ".tgz",
)
_SURE_NAMES: Final = ("MLmodel", "model.py", "model.json", "model.txt")


def skipped(name: str) -> bool:
    """Whether a name is never looked at: hidden, temporary, or the file system's own."""
    return name.startswith(".") or name.endswith(_SKIPPED_SUFFIXES) or name in _SKIPPED


def looks_like_model(name: str) -> bool:
    """Whether a file of that name can only be a model."""
    return name in _SURE_NAMES or name.endswith(_SURE_SUFFIXES)


class Children:
    """What lies directly in a folder: its folders, links and files, without the skipped ones."""

    def __init__(self, folder: Path) -> None:
        self.folders: list[str] = []
        self.links: list[str] = []
        self.files: list[str] = []
        self.held = False
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == ".incomplete":
                    self.held = True
                elif skipped(entry.name):
                    continue
                elif entry.is_symlink():
                    self.links.append(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    self.folders.append(entry.name)
                else:
                    self.files.append(entry.name)
        self.folders.sort()

    def model_file(self) -> str | None:
        """A file here that can only be a model, or None."""
        return next((name for name in sorted(self.files) if looks_like_model(name)), None)


def name_problem(kind: str, name: str) -> str | None:
    """Why a folder's name cannot be a model's or a version's name, or None."""
    try:
        check_name(kind, name)
    except BadInput as error:
        return f"{error}; rename the folder"
    return None


def decide(children: dict[str, Children | None], root: Path) -> tuple[Layout | None, bool]:
    """Which layout the folders directly in ``root`` tell of, and whether that is sure.

    Folders that directly hold a model file are versions; folders whose own folders do are
    models. The greater number decides, so that one file in a wrong place hides nothing. Where no
    file has a known name, any file tells, but is not sure; (None, False) if there is none.
    """
    for sure in (True, False):
        versions = models = 0
        for name, below in children.items():
            if below is None:
                continue
            if _tells(below, sure):
                versions += 1
            elif any(_tells_at(root / name / inner, sure) for inner in below.folders):
                models += 1
        if models or versions:
            return ("models" if models >= versions else "versions"), sure
    return None, False


def _tells(children: Children, sure: bool) -> bool:
    return children.model_file() is not None if sure else bool(children.files)


def _tells_at(folder: Path, sure: bool) -> bool:
    try:
        return _tells(Children(folder), sure)
    except OSError:
        return False
