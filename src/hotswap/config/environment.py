"""What the environment and the machine say, and what of it child processes are given."""

from __future__ import annotations

import os
from pathlib import Path


def default_workers() -> int:
    """Half the processors this process may use, at least 1 and at most 4.

    Half, because the hosts that compute need the rest; at most 4, because four front ends
    already parse more requests than most models can answer.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(4, processors // 2))


# What child processes are given of the environment: what libraries need to be found and to
# compute, and nothing of hotswap's own (its token above all).
_PASSED_ON = (
    "PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "TERM", "NO_COLOR", "FORCE_COLOR",
)  # fmt: skip
_PASSED_ON_PREFIXES = ("LC_", "PYTHON", "CUDA_", "NVIDIA_", "COVERAGE_")


def child_environment() -> dict[str, str]:
    """The environment of the server's own processes."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }


# What the libraries that fetch versions find their credentials and endpoints by. Only control
# and its fetching process are given them: no worker, no host, no job that may run a model's code.
_CREDENTIALS = (
    "AWS_", "GOOGLE_", "GCSFS_", "FSSPEC_", "MLFLOW_", "STORAGE_EMULATOR_HOST",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
# Short, where the user says nothing: who asks again soon need not be patient. And all through the
# tracking server, which never sends us to another address.
_MLFLOW = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def credentials() -> dict[str, str]:
    """What of the environment is for fetching versions alone."""
    return {name: v for name, v in os.environ.items() if name.startswith(_CREDENTIALS)}


def fetching_environment() -> dict[str, str]:
    """The environment of the process that fetches versions and speaks with registries."""
    return child_environment() | _MLFLOW | credentials()


def machine_memory(cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """The memory, in bytes, that this machine or this container has."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        total = 4 * 1024**3  # the platform does not tell; a modest machine is assumed
    try:
        return min(total, int(cgroup.read_text()))
    except (OSError, ValueError):  # no control group, or "max": no limit of its own
        return total


__all__ = [
    "child_environment", "credentials", "default_workers", "fetching_environment", "machine_memory",
]  # fmt: skip
