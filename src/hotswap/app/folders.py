"""The folders that a server or an engine holds: its state directory, its runtime folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hotswap.core.naming import STAGING
from hotswap.errors import ConfigError

# Not the name of a state directory's lock: only folders with this one are ever swept.
_RUNTIME_LOCK = "runtime.lock"
# macOS allows 103 bytes for a socket's address, and 27 follow: "/hotswap-12345678/h12345678".
_ROOT_LENGTH = 76


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """One server or engine on a state directory, which is swept first. Raises `ConfigError` if
    there is another.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        file = open(state_dir / "lock", "a+")  # noqa: SIM115 - held until the end
    except OSError as exc:
        raise ConfigError(
            f"the state directory {state_dir} cannot be used: {exc.strerror}"
        ) from None
    with file:
        try:
            _lock(file.fileno())
        except OSError:
            file.seek(0)
            holder = "" if sys.platform == "win32" else file.read().strip()
            who = f"process {holder}" if holder else "another process"
            raise ConfigError(
                f"the state directory {state_dir} is in use by {who}: stop that server or engine, "
                "or choose another state directory (--state-dir)"
            ) from None
        if sys.platform != "win32":
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        _sweep_staging(state_dir)
        yield


def _sweep_staging(state_dir: Path) -> None:
    """Remove versions that a killed server had half taken in. Nobody is at work on them now, even
    if a process has the id in their name: in a container ids come again.
    """
    for left in (state_dir / "artifacts").glob(f"{STAGING}*"):
        shutil.rmtree(left, ignore_errors=True)


def _lock(descriptor: int) -> None:
    """Raises OSError if another process, or this one, holds it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def runtime_folder() -> Iterator[str]:
    """A short, private folder for sockets, tables and tallies; gone at the end."""
    root = runtime_root(("/dev/shm", tempfile.gettempdir(), "/tmp"))
    sweep_runtime_folders(Path(root))
    folder = tempfile.mkdtemp(prefix="hotswap-", dir=root)
    # Locked before it has its name: a server that starts meanwhile must not sweep this folder.
    unnamed = os.path.join(folder, f".{_RUNTIME_LOCK}")
    lock = open(unnamed, "w")  # noqa: SIM115 - held until the end
    _lock(lock.fileno())
    os.replace(unnamed, os.path.join(folder, _RUNTIME_LOCK))
    os.mkdir(os.path.join(folder, "tables"))
    os.mkdir(os.path.join(folder, "tally"))
    os.mkdir(os.path.join(folder, "rings"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def runtime_root(roots: Sequence[str]) -> str:
    """The first of these that can be written to and leaves room for the hosts' socket addresses."""
    usable = (p for p in roots if os.access(p, os.W_OK | os.X_OK) and len(p) <= _ROOT_LENGTH)
    root = next(usable, None)
    if root is None:
        raise ConfigError(
            f"none of {', '.join(roots)} can hold the server's sockets: set TMPDIR to a folder "
            f"that can be written to and whose path has at most {_ROOT_LENGTH} characters"
        )
    return root


def sweep_runtime_folders(root: Path) -> None:
    """Remove what supervisors that were killed have left: their locks went with them."""
    for old in root.glob("hotswap-*"):
        with contextlib.suppress(OSError), open(old / _RUNTIME_LOCK) as lock:
            _lock(lock.fileno())
            shutil.rmtree(old, ignore_errors=True)
