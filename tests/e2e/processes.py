"""A server's processes as /proc shows them: who is who, who is alive, who holds a connection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SEQPACKET = "0005"


class Process(NamedTuple):
    """One process; ``started`` tells it from another that later got the same number."""

    pid: int
    parent: int
    state: str
    started: int


def read(pid: int) -> Process | None:
    """None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return Process(pid, int(fields[1]), fields[0], int(fields[19]))


def alive(process: Process) -> bool:
    """Whether it still runs (a zombie does not)."""
    now = read(process.pid)
    return now is not None and now.started == process.started and now.state not in "ZX"


def descendants(pid: int) -> list[Process]:
    """All below it, zombies left out."""
    processes = [p for p in _all() if p.state not in "ZX"]
    found: list[Process] = []
    wanted = {pid}
    while True:
        more = [p for p in processes if p.parent in wanted and p not in found]
        if not more:
            return found
        found += more
        wanted = {p.pid for p in more}


def _all() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            process = read(int(name))
            if process is not None:
                yield process


def command(pid: int) -> list[str]:
    """Its command line; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []


def inodes(pid: int) -> set[int]:
    """Of the sockets that it holds."""
    found: set[int] = set()
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def unix_sockets() -> dict[int, tuple[str, str]]:
    """Inode -> (type, path)."""
    found = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        found[int(fields[6])] = (fields[4], fields[7] if len(fields) > 7 else "")
    return found


def is_nursery(pid: int, sockets: dict[int, tuple[str, str]]) -> bool:
    """A nursery and the hosts that it forked have one command line; only it has its socket."""
    return any(sockets.get(inode, ("", ""))[0] == _SEQPACKET for inode in inodes(pid))


def connection_inode(server_port: int, client_port: int) -> int:
    """Of the server's side of a loopback TCP connection; 0 if nobody has accepted it."""
    wanted = (f":{server_port:04X}", f":{client_port:04X}")
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted[0]) and fields[2].endswith(wanted[1]):
            return int(fields[9])
    return 0
