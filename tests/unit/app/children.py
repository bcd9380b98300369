"""Stand-ins for the supervisor's children: they speak its wire and do what a test tells them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

WORKER = """
import os, signal, sys
import socket
from hotswap.ipc import messages
from hotswap.ipc.channel import BlockingChannel
from hotswap.ipc.messages import Ack, Beat, Counted, Drained, Listening, Push, Stop, Tripped
from hotswap.ipc.messages import Unready, Wanted
from hotswap.core.windows import Window
fd = int(next(a for a in sys.argv if a.startswith("--channel=")).split("=")[1])
channel = BlockingChannel(socket.socket(fileno=fd), messages.encode, messages.decode)
spec = channel.receive().spec
if spec.access_log:  # the test's way to say: do not come up
    signal.pause()
channel.send(Listening())
while True:
    try:
        message = channel.receive()
    except EOFError:
        sys.exit(0)
    if isinstance(message, Push):
        channel.send(Ack(message.table.index, message.table.revision))
        if message.table.stable == "drains":
            channel.send(Drained(message.table.index, message.table.revision))
        elif message.table.stable == "wants":
            channel.send(Wanted("m", "v2"))
        elif message.table.stable == "counts":
            channel.send(Counted([Window("t", 1, "w", 7, 0, 0)]))
            channel.send(Tripped(message.table.index, "t", "five in a row", 5))
    elif isinstance(message, Unready):
        channel.send(Beat())
    elif isinstance(message, Stop):
        sys.exit(0)
"""

NURSERY = """
import os, signal, sys, time
import socket
from hotswap.ipc import messages
from hotswap.ipc.messages import Fork, Forked, Preload, Preloaded
options = dict(a[2:].split("=", 1) for a in sys.argv if a.startswith("--"))
sock = socket.socket(fileno=int(options["socket"]))
names = tuple(n for n in options["runtimes"].split(",") if n)
if "slow" not in names:
    sock.send(messages.encode(Preloaded(names, tuple(f"{n}: no such" for n in names if n == "bad"))))
while True:
    data, fds, _, _ = socket.recv_fds(sock, 65536, 1)
    if not data:
        sys.exit(0)
    message = messages.decode(data)
    if isinstance(message, Preload):
        sock.send(messages.encode(Preloaded(message.runtimes)))
    elif isinstance(message, Fork):
        if message.host.startswith("kills") and "spare" not in names:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(fds[0], b"forked")
        os.close(fds[0])
        sock.send(messages.encode(Forked(message.host, message.incarnation, os.getpid())))
"""


def run(code: str, arguments: Sequence[str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """A stand-in as a child process, to be collected by a watch."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code, *arguments],
        pass_fds=tuple(descriptors),
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    process.returncode = 0
    return process
