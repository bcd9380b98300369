"""Print the exact versions of everything that pyproject.toml asks for, as a requirements file.

``make lock`` runs it inside ``.venv`` after a change to the dependencies. Only what is declared
(all extras, all dependency groups) and what that needs in turn is written, not what else happens
to be installed. What only some platforms have carries its marker, and a build's local label
(``+cpu``) is left out, so that the file installs from the plain package index on a fresh machine.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
NOT_LOCKED = {"pip", "setuptools", "wheel"}
MARKERS = {
    "uvloop": "sys_platform != 'win32'",
    "xgboost-cpu": "sys_platform == 'linux'",
}
HEADER = """\
# Exact versions of everything that development and the tests use; `make setup` installs it.
# Written by `make lock`: edit pyproject.toml, install, lock again.
"""


def declared() -> list[Requirement]:
    """What pyproject.toml names itself, on this platform."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))
    texts = list(project["project"]["dependencies"])
    for group in [
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]:
        texts += group
    return [Requirement(text) for text in texts if not text.startswith("hotswap[")]


def pins() -> dict[str, str]:
    """Name → public version of each declared package and of what they need in turn."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    left = [(requirement, "") for requirement in declared()]
    while left:
        requirement, extra = left.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{requirement} is not installed here: run make setup first")
        found[name] = installed.version.partition("+")[0]
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                left += [(Requirement(text), wanted) for text in installed.requires or ()]
    return {name: version for name, version in found.items() if name not in NOT_LOCKED}


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
