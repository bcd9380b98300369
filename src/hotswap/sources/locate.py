"""From a URI to a file or folder that the server may read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from hotswap.errors import BadInput

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_LONGEST: Final = 4096
#: Where paths have drives, and may have backslashes: the embedded engine runs there too.
_WINDOWS: bool = os.name == "nt"
_DRIVE: Final = re.compile(r"/[A-Za-z]:(?:/|$)")


def locate(source: str | Path, allowed_roots: Sequence[Path]) -> Path:
    """The real (link-free, absolute) path of a source: ``file:`` URI, or path from here.

    It must lie within one of ``allowed_roots``, links resolved on both sides. What is outside
    is refused alike whether it exists or not. Raises `BadInput`.
    """
    text = source if isinstance(source, str) else source.as_posix()
    if _WINDOWS:
        text = text.replace("\\", "/")
    shown = ascii(text if len(text) <= 120 else text[:117] + "...")
    if not text.strip():
        raise BadInput("the uri is empty: give a path or a file: URI")
    path = _path_of(text, shown) if isinstance(source, str) else text
    _check_plain(path, shown)
    try:
        real = Path(os.path.realpath(path))
        roots = [Path(os.path.realpath(root)) for root in allowed_roots]
    except (OSError, ValueError) as error:
        raise BadInput(f"the uri {shown} cannot be read") from error
    if not any(real.is_relative_to(root) for root in roots):
        raise BadInput(
            f"the uri {shown} is outside of the folders that this server may read: move it into "
            "the models folder, or allow its folder with --allow-root"
        )
    if not (real.is_file() or real.is_dir()):
        raise BadInput(f"the uri {shown} names no file or folder on the server")
    return real


def _path_of(text: str, shown: str) -> str:
    scheme = _SCHEME.match(text)
    if scheme is None or (_WINDOWS and len(scheme[1]) == 1):
        return text
    if scheme[1].lower() != "file":
        raise BadInput(
            f"the uri {shown} has a scheme that does not exist here: give a path or a file: URI"
        )
    try:
        parts = urlsplit(text)
    except ValueError:
        raise BadInput(f"the uri {shown} is not valid") from None
    if parts.netloc not in ("", "localhost"):
        raise BadInput(f"the uri {shown} names another host: write file:///path")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise BadInput(f"the uri {shown} has a query or a fragment: leave it out")
    if not parts.path.startswith("/"):
        raise BadInput(f"the uri {shown} is relative: write file:///path, or a plain path")
    try:
        path = unquote(parts.path, errors="strict")
    except UnicodeDecodeError:
        raise BadInput(f"the uri {shown} does not decode to UTF-8") from None
    return path[1:] if _WINDOWS and _DRIVE.match(path) else path


def _check_plain(path: str, shown: str) -> None:
    """No second reading of the path may mean anything else."""
    if len(path) > _LONGEST:
        raise BadInput(f"the uri is longer than {_LONGEST} characters")
    if "\\" in path:
        raise BadInput(f"the uri {shown} has a backslash: separate folders with /")
    if not path.isprintable():
        raise BadInput(f"the uri {shown} has a control character")
    if _PERCENT.search(path):
        raise BadInput(f"the uri {shown} is percent-encoded where it should be a plain path")
    if ".." in path.split("/"):
        raise BadInput(f"the uri {shown} has '..' in it: give the path without")
