"""What replaces Linux's own calls where they lack, each tried here with those calls taken away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hotswap.app import platform, sockets, spawner
from hotswap.app.folders import runtime_root
from hotswap.app.processes import reap_strangers
from hotswap.app.spawner import Spawner
from hotswap.config import Settings
from hotswap.errors import ConfigError
from hotswap.ipc.messages import Fork, Forked

_MIB = 1024 * 1024


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A platform without Linux's calls and without /proc."""
    monkeypatch.setattr(platform, "LINUX", False)
    monkeypatch.setattr(platform, "_PROC", tmp_path / "no-proc")
    monkeypatch.delattr(os, "waitid")
    monkeypatch.setattr(platform, "_prctl", lambda option, value: pytest.fail("prctl was called"))


@pytest.mark.usefixtures("elsewhere")
def test_what_only_linux_has_is_left_out() -> None:
    """Death signals, the subreaper and its reaping ask the system for nothing elsewhere."""
    platform.die_with_parent()
    platform.become_subreaper()
    reap_strangers(set())


@pytest.mark.usefixtures("elsewhere")
def test_memory_without_proc() -> None:
    """A process's memory is then its resident set, which grows with what it holds."""
    code = "import sys; kept = b'x' * (64 << 20); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        held = platform.own_memory(process.pid)
        process.communicate()
    assert 64 * _MIB < held < 256 * _MIB
    assert platform.own_memory(process.pid) == 0, "it is gone"


@pytest.mark.usefixtures("elsewhere")
def test_memory_without_proc_and_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even `ps` can be run, it is not known: 0."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert platform.own_memory(os.getpid()) == 0


def test_memory_with_proc_counts_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux no process is started for it."""
    monkeypatch.setattr(platform, "_resident", lambda pid: pytest.fail("ps was asked"))
    assert 0 < platform.own_memory(os.getpid()) < 2048 * _MIB


def test_lifeline_ends_a_busy_process() -> None:
    """A process in an endless computation ends when the other end of its lifeline is closed."""
    read, write = os.pipe()
    code = f"""
        from hotswap.app.platform import die_with_lifeline
        die_with_lifeline({read})
        print("ready", flush=True)
        while True:
            sum(range(1000))
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], pass_fds=[read], stdout=subprocess.PIPE
    ) as process:
        os.close(read)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert process.poll() is None
        os.close(write)
        try:
            assert process.wait(30) == 1
        finally:
            process.kill()


@pytest.mark.usefixtures("elsewhere")
def test_slots_share_one_socket_where_ports_are_not_balanced() -> None:
    """Elsewhere all slots have the same listening socket, without SO_REUSEPORT."""
    found, address = sockets.bind_slots("127.0.0.1", 0, 3)
    with found[0] as sock:
        assert len(found) == 3
        assert {each.fileno() for each in found} == {sock.fileno()}
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
        assert not sock.getblocking()
        with socket.create_connection(address, 5):
            accepted, _ = _accept(sock)
            accepted.close()
        with pytest.raises(ConfigError, match=f"port {address[1]} on 127.0.0.1 is in use"):
            sockets.bind_slots("127.0.0.1", address[1], 2)


def _accept(sock: socket.socket) -> tuple[socket.socket, object]:
    sock.settimeout(5)
    return sock.accept()


def test_slots_have_a_socket_each_on_linux() -> None:
    """Linux shares connections out between sockets of one port: one a slot."""
    found, address = sockets.bind_slots("127.0.0.1", 0, 3)
    assert len({each.fileno() for each in found}) == 3
    assert {each.getsockname()[1] for each in found} == {address[1]}
    for sock in found:
        sock.close()


def test_runtime_folder_leaves_room_for_socket_addresses(tmp_path: Path) -> None:
    """A root whose path is too long, or that is not there, is passed over; none left: refused."""
    long = tmp_path / ("x" * 80)
    long.mkdir()
    short = "/tmp"
    assert runtime_root(["/no-such-root", str(long), short]) == short
    with pytest.raises(ConfigError, match=r"set TMPDIR to a folder .* at most 76 characters"):
        runtime_root(["/no-such-root", str(long)])
    address = f"{'r' * 76}/hotswap-12345678/h12345678"
    assert len(address) < 104, "macOS's limit, with the byte that ends it"


def test_fork_is_refused_off_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fork` elsewhere than on Linux is refused with the reason; `auto` means spawn there."""
    assert not Settings(host_start="auto").spawns_hosts()
    assert not Settings(host_start="fork").spawns_hosts()
    assert Settings(host_start="spawn").spawns_hosts()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert Settings().spawns_hosts()
    assert Settings(host_start="spawn").spawns_hosts()
    with pytest.raises(ConfigError, match=r"--host-start: 'fork' needs Linux: .* use 'spawn'"):
        Settings(host_start="fork")


def test_a_host_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes to be had the host has failed, with the system's reason."""

    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(spawner, "start", refuse)
    told: list[Forked] = []
    ours, theirs = socket.socketpair()
    with ours:
        Spawner(0, "/tmp", told.append).fork(Fork("h", 3, 0), "python", theirs)
        assert ours.recv(1) == b"", "the host's end is closed"
    reason = "a process could not be started: Resource temporarily unavailable"
    assert told == [Forked("h", 3, 0, reason)]


def test_importing_hotswap_needs_nothing_of_unix() -> None:
    """`import hotswap` and all that it offers import neither fcntl nor resource nor uvloop."""
    code = """
        import sys
        blocked = ("fcntl", "resource", "uvloop", "termios", "pwd", "grp")

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name in blocked:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        for name in blocked:
            sys.modules.pop(name, None)
        sys.meta_path.insert(0, Refuse())
        import hotswap
        for name in getattr(hotswap, "__all__", ()):
            getattr(hotswap, name)
        print("imported")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "imported\n", done.stderr


def test_sigkill_is_told_by_its_name() -> None:
    """The signal numbers that exits are told by exist on every Unix."""
    from hotswap.app.processes import describe_exit

    assert describe_exit(-signal.SIGKILL).startswith("killed by SIGKILL")


def test_only_left_runtime_folders_are_swept(tmp_path: Path) -> None:
    """What a killed server left goes; a live server's folder and a state directory stay."""
    from hotswap.app.folders import locked, runtime_folder, sweep_runtime_folders

    with locked(tmp_path / "hotswap-state"):
        pass  # a server that used it, and has ended
    left = tmp_path / "hotswap-left"
    left.mkdir()
    with runtime_folder() as folder:
        live = Path(folder)
        for lock in live.glob("*lock*"):
            (left / lock.name).touch()
        assert list(left.iterdir()), "a runtime folder has a lock"
        sweep_runtime_folders(live.parent)
        assert live.is_dir()
        sweep_runtime_folders(tmp_path)
    assert not live.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["hotswap-state"]


def test_what_a_killed_server_was_taking_in_is_swept_at_the_next_start(tmp_path: Path) -> None:
    """By whatever process id: in a container the next server may have the same one."""
    from hotswap.app.folders import locked

    artifacts = tmp_path / "artifacts"
    left = artifacts / f".staging-{os.getpid()}-0123456789abcdef"
    (left / "model").mkdir(parents=True)
    (artifacts / ("ab" * 32)).mkdir()
    with locked(tmp_path):
        assert [each.name for each in artifacts.iterdir()] == ["ab" * 32]
        left.mkdir()
        with pytest.raises(ConfigError, match="in use"), locked(tmp_path):
            pass
        assert left.is_dir(), "only who has the state directory sweeps it"


def test_work_in_the_background_gets_its_priority_back() -> None:
    """What runs in the background yields meanwhile, and afterwards no thread of it still does."""
    script = """
import os, threading
from hotswap.app import platform
stop = threading.Event()
before = os.getpriority(os.PRIO_PROCESS, 0)
with platform.background():
    during = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    threading.Thread(target=stop.wait).start()
after = {os.getpriority(os.PRIO_PROCESS, t) for t in platform._threads()}
classes = {os.sched_getscheduler(t) for t in platform._threads()}
stop.set()
assert during[0] >= before and during[1] == os.SCHED_BATCH, during
assert after == {before} and classes == {os.SCHED_OTHER}, (after, classes)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
