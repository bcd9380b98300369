"""What keeps a server from starting is told in one line, and nothing is left behind."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.harness import Server, free_port, run_command, wait_until
from tests.e2e.tricks import write_trick

pytestmark = pytest.mark.e2e


def refusal(*arguments: str) -> str:
    """The one line with which ``hotswap serve`` ends."""
    done = run_command("serve", *arguments)
    assert done.returncode not in (0, -9, -15), done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """Free ports and a state directory."""
    ports = [f"--port={free_port()}", f"--control-port={free_port()}"]
    return [*ports, f"--state-dir={tmp_path / 'state'}"]


@pytest.mark.parametrize("flag", ["--port", "--control-port"])
def test_port_in_use(folder: Path, flags: list[str], flag: str) -> None:
    """The port is named, for either listener; and the server does not share it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(str(folder), *flags, f"{flag}={port}")
    assert f"port {port} on 127.0.0.1 is in use" in line


def test_port_of_another_server(folder: Path, serve: Serve, tmp_path: Path) -> None:
    """Two servers never share a port, although each shares its own among its workers."""
    write_trick(folder, "m", "v1")
    server = serve()
    line = refusal(
        str(folder), f"--port={server.data_port}", "--control-port=0",
        f"--state-dir={tmp_path / 'other'}",
    )  # fmt: skip
    assert f"port {server.data_port}" in line
    assert server.predict("m").status == 200


def test_state_directory_in_use(folder: Path, serve: Serve, flags: list[str]) -> None:
    """One server a state directory; the message names the other's process. The first serves on."""
    write_trick(folder, "m", "v1")
    server = serve()
    line = refusal(str(folder), *flags, f"--state-dir={server.state_dir}")
    assert f"in use by process {server.pid}" in line
    assert server.predict("m").status == 200
    server.kill()
    server.start()  # a lock dies with its holder


def test_state_directory_that_is_a_file(folder: Path, flags: list[str], tmp_path: Path) -> None:
    """A state directory that cannot be one is named."""
    (tmp_path / "file").touch()
    assert "cannot be used" in refusal(str(folder), *flags, f"--state-dir={tmp_path / 'file'}")


def test_models_folder_that_does_not_exist(tmp_path: Path, flags: list[str]) -> None:
    """The folder is named."""
    line = refusal(str(tmp_path / "absent"), *flags)
    assert "absent does not exist" in line


def test_models_folder_that_is_a_file(tmp_path: Path, flags: list[str]) -> None:
    """A file is no models folder, and that is said."""
    (tmp_path / "file").touch()
    line = refusal(str(tmp_path / "file"), *flags)
    assert "file" in line
    assert "folder" in line


@pytest.mark.parametrize("flag", ["--host=0.0.0.0", "--control-host=0.0.0.0", "--host=::"])
def test_beyond_loopback_without_a_token(folder: Path, flags: list[str], flag: str) -> None:
    """Neither listener may be reached by other machines without a token, unless that is allowed."""
    line = refusal(str(folder), *flags, flag)
    assert "token" in line
    assert "--insecure" in line


def test_settings_that_do_not_exist(folder: Path, flags: list[str], tmp_path: Path) -> None:
    """A setting that means nothing is refused with the nearest that does."""
    config = tmp_path / "config.yaml"
    config.write_text("worker: 3\n")
    assert "'workers'" in refusal(str(folder), *flags, f"--config={config}")
    config.write_text("workers: many\n")
    assert "workers" in refusal(str(folder), *flags, f"--config={config}")
    assert "cannot be read" in refusal(str(folder), *flags, f"--config={tmp_path / 'none.yaml'}")


def test_nothing_to_serve(folder: Path, serve: Serve) -> None:
    """Without a model the server runs, says that it is not ready, and takes the first one."""
    server = serve(ready=False)

    def live() -> bool:
        try:
            return server.data("GET", "/v2/health/live").status == 200
        except OSError:
            return False

    wait_until(live, "the server to answer")
    server.note()
    assert server.data("GET", "/v2/health/ready").status == 503
    answer = server.predict("m")
    assert answer.status == 404
    server.wait_control()
    write_trick(folder, "m", "v1")
    wait_until(lambda: server.has_version("m", "v1"), "the version to be registered")
    assert server.switch("m", "v1").status == 200
    server.wait_ready()
    assert server.predict("m").status == 200


def test_untrusted_code(folder: Path, serve: Serve, tmp_path: Path) -> None:
    """Without the operator's trust no code of a version runs, and the refusal names the flag."""
    marker = tmp_path / "ran"
    write_trick(
        folder, "m", "v1", load=f"open({str(marker)!r}, 'w').close()",
        settings="metadata: {trust_code: true}\n",
    )  # fmt: skip
    server = serve(ready=False, trust_code=False)
    wait_until(lambda: _known(server), "the version to be registered")
    server.note()
    answer = server.switch("m", "v1")
    assert answer.status in (403, 409), answer
    assert "--trust-code" in answer.error
    assert server.version("m", "v1")["state"] == "UNAVAILABLE"
    assert not marker.exists()


def _known(server: Server) -> bool:
    try:
        return server.has_version("m", "v1")
    except OSError:
        return False
