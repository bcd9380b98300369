"""The only module that unpickles. It is reached only after the operator's trust was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hotswap.errors import LoadError
from hotswap.runtimes.entries import head
from hotswap.runtimes.packages import missing, require

_PLAIN: Final = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_COMPRESSED: Final = {
    b"\x78": "zlib",
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x5d\x00": "lzma",
    b"\x04\x22\x4d\x18": "lz4",
}
"""What joblib compresses with, by the first bytes."""


def load_pickle(path: Path) -> Any:
    """The object in a pickle or joblib file. Runs whatever code it carries.

    Raises `LoadError` if it is neither, or ends early; `MissingDependency` if it needs a
    package that is not installed.
    """
    start = head(path, 8)
    if not start.startswith((*_PLAIN, *_COMPRESSED)):
        raise LoadError(f"{path.name} is not a pickle or joblib file")
    joblib = require("joblib", "joblib", "sklearn")
    try:
        return joblib.load(path)
    except ModuleNotFoundError as error:
        raise missing(path.name, error) from error
    except Exception as error:
        raise LoadError(
            f"{path.name} could not be unpickled ({type(error).__name__}: {error}); it may be "
            "cut short, or written with other versions of its packages"
        ) from error
