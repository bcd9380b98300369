"""Each peer's own cached environment, from its pinned requirements."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.paths import CACHE, HERE, LOGS


class NotInstalled(Exception):
    """A peer could not be installed; the message says why."""


def python(name: str) -> Path:
    """The interpreter of ``name``'s environment, made (pip only) when its pins changed.

    ``name`` is a file of ``peers/requirements`` without its suffix. Raises NotInstalled.
    """
    pins = HERE / "peers" / "requirements" / f"{name}.txt"
    folder = CACHE / name
    mark = folder / "installed"
    wanted = hashlib.sha256(pins.read_bytes()).hexdigest()
    if not (mark.exists() and mark.read_text() == wanted):
        print(f"installing {name} into {folder} (once)", flush=True)
        _run([sys.executable, "-m", "venv", str(folder)], name)
        _run([str(folder / "bin/pip"), "install", "-q", "-r", str(pins)], name)
        frozen = subprocess.run(
            [str(folder / "bin/pip"), "freeze", "-r", str(pins)], capture_output=True, text=True
        ).stdout
        direct = frozen.partition("## The following")[0].split()
        (folder / "versions.txt").write_text(" ".join(direct))
        mark.write_text(wanted)
    return folder / "bin" / "python"


def _run(command: list[str], name: str) -> None:
    with (LOGS / f"install-{name}.log").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = (LOGS / f"install-{name}.log").read_text(errors="replace").splitlines()
        reason = next((line for line in reversed(lines) if "ERROR" in line), "pip failed")
        raise NotInstalled(f"{name} could not be installed: {reason}")
