"""Print the exact versions of the packages installed here, as a requirements file.

``make lock`` runs it inside ``.venv`` after a change to the dependencies. What only some
platforms have carries its marker, and a build's local label (``+cpu``) is left out, so that
the file installs from the plain package index on a fresh machine.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions

NOT_LOCKED = {"hotswap", "pip", "setuptools", "wheel"}
MARKERS = {
    "uvloop": "sys_platform != 'win32'",
    "xgboost-cpu": "sys_platform == 'linux'",
}
HEADER = """\
# Exact versions of everything that development and the tests use; `make setup` installs it.
# Written by `make lock`: edit pyproject.toml, install, lock again.
"""


def pins() -> dict[str, str]:
    """Each installed distribution's normalised name and public version."""
    found: dict[str, str] = {}
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        if name not in NOT_LOCKED:
            found[name] = distribution.version.partition("+")[0]
    return found


def main() -> None:
    """Write the file to standard output, one requirement a line, by name."""
    sys.stdout.write(HEADER)
    for name, version in sorted(pins().items()):
        marker = f" ; {MARKERS[name]}" if name in MARKERS else ""
        sys.stdout.write(f"{name}=={version}{marker}\n")
        if name == "xgboost-cpu":
            sys.stdout.write(f"xgboost=={version} ; sys_platform != 'linux'\n")


if __name__ == "__main__":
    main()
