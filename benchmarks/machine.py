"""What the figures were taken on: hardware, system, and the version of everything."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.paths import CACHE, ROOT

OURS = (
    "hotswap", "uvicorn", "uvloop", "httptools", "msgspec", "numpy", "scikit-learn", "onnxruntime",
)  # fmt: skip


def facts() -> dict[str, Any]:
    """Processor, cores, memory and system, as the kernel names them."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu.group(1) if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.group(1)) / 2**20, 1) if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "commit": _output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]),
    }


def versions() -> dict[str, str]:
    """Installed versions of ours, of the load generators, and of each peer's environment."""
    found = {}
    for name in OURS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "source tree"
    found["wrk"] = _output(["wrk", "-v"]).partition(" [")[0]
    found["nginx"] = _output(["nginx", "-v"])
    for frozen in sorted(CACHE.glob("*/versions.txt")):
        found[frozen.parent.name] = frozen.read_text().strip()
    return found


def processor_seconds() -> tuple[float, float]:
    """Seconds that all processors were busy since the start, and those of this run's processes.

    The second counts what this process has waited for, and what that waited for.
    """
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    busy = sum(int(n) for i, n in enumerate(fields[:8]) if i not in (3, 4))  # idle, iowait
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ours = sum(each.ru_utime + each.ru_stime for each in used)
    return busy / os.sysconf("SC_CLK_TCK"), ours


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "not installed"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else ""
