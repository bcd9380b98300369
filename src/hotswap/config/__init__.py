"""The server's settings: flags, then the environment, then a YAML file.

A flag ``--state-dir`` is the variable ``HOTSWAP_STATE_DIR`` and the YAML key ``state_dir``;
limits may also stand in a YAML section ``limits`` without their prefix. This package is the only
one that reads the process's environment.

>>> Settings(port=9000).port
9000
"""

from hotswap.config.environment import (
    child_environment,
    credentials,
    default_workers,
    fetching_environment,
    machine_memory,
)
from hotswap.config.limits import LIMIT
from hotswap.config.settings import Settings
from hotswap.config.values import is_loopback

__all__ = [
    "LIMIT", "Settings", "child_environment", "credentials", "default_workers",
    "fetching_environment", "is_loopback", "machine_memory",
]  # fmt: skip
