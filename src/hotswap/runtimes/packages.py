"""Importing a runtime's library when it is needed, or saying what to install."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from hotswap.errors import MissingDependency


def missing(what: str, error: ModuleNotFoundError) -> MissingDependency:
    """``what`` (a file or call of the model's own) needs a package that is not installed."""
    name = (error.name or "that it imports").partition(".")[0]
    return MissingDependency(
        f"{what} needs the package {name}, which is not installed; install it beside hotswap with "
        f"pip (its name there may differ from {name!r}, which it is imported by)"
    )


@contextlib.contextmanager
def unthreaded() -> Iterator[None]:
    """Import without pyarrow, which starts threads when it is imported.

    Libraries import it if it is there (pandas does), and a process with threads cannot be forked
    safely. Who needs it can import it afterwards.
    """
    hidden = "pyarrow" not in sys.modules
    if hidden:
        sys.modules["pyarrow"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop("pyarrow", None)


def require(module: str, package: str, extra: str) -> Any:
    """Import ``module``. Raises `MissingDependency` naming the pip extra if it is not there."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        absent = error.name or module
        what = package if module.split(".")[0] == absent.split(".")[0] else absent
        raise MissingDependency(
            f"{what} is not installed; install it with: pip install 'hotswap[{extra}]'"
        ) from error
