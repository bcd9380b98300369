"""The supervisor's hosts at the node's end."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from hotswap.app.hosts import Hosts
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.ipc.messages import Fork, Forked, HostSpec, HostState
from hotswap.ipc.words import HEALTH_WORDS, Health, Words


async def test_a_host_that_is_not_forked_yet_does_not_delay_the_end(tmp_path: Path) -> None:
    """The nursery is closed with the node: its word about that host never comes."""
    asked = asyncio.Event()
    gone: list[HostState] = []
    health = Health(Words.create("test-hosts", HEALTH_WORDS))
    hosts = Hosts(health, -1, str(tmp_path), lambda state: None, gone.append)

    def fork(message: Fork, runtime: str, theirs: socket.socket) -> None:
        asked.set()
        theirs.close()

    hosts.nurseries.fork = fork  # type: ignore[method-assign]
    artifact = Artifact(str(tmp_path), "model.skops", "sklearn", "sha256:00")
    spec = HostSpec(
        host="1", model="m", version="v1", instance=0, slot=0, artifact=artifact,
        settings=VersionSettings(), public=None, allow_unvalidated=False, load_seconds=9.0,
    )  # fmt: skip
    hosts.want(spec)
    await asked.wait()
    hosts.stop_all()
    assert not hosts.hosts
    assert [state.spec.host for state in gone] == ["1"]


async def test_a_host_that_served_is_forked_again_after_a_failed_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Want of memory passes: what is served is not given up, and can be stopped meanwhile."""
    monkeypatch.setattr("hotswap.app.hosts._RETRY_SECONDS", 0.0)
    asked: asyncio.Queue[Fork] = asyncio.Queue()
    gone: list[HostState] = []
    health = Health(Words.create("test-hosts", HEALTH_WORDS))
    hosts = Hosts(health, -1, str(tmp_path), lambda state: None, gone.append)

    def fork(message: Fork, runtime: str, theirs: socket.socket) -> None:
        asked.put_nowait(message)
        theirs.close()

    hosts.nurseries.fork = fork  # type: ignore[method-assign]
    artifact = Artifact(str(tmp_path), "model.skops", "sklearn", "sha256:00")
    hosts.want(
        HostSpec(
            host="1",
            model="m",
            version="v1",
            instance=0,
            slot=0,
            artifact=artifact,
            settings=VersionSettings(),
            public=None,
            allow_unvalidated=False,
            load_seconds=9.0,
        )
    )
    host = hosts.hosts["1"]
    first = await asyncio.wait_for(asked.get(), 10)
    host.state = "restarting"  # it has served, and died
    for _ in range(2):
        host.forked(Forked("1", host.incarnation, 0, "no memory"))
        again = await asyncio.wait_for(asked.get(), 10)
        assert again.incarnation == first.incarnation + 1
        first = again
    assert [spec.host for spec in hosts.wanted()] == ["1"]
    hosts.unwant("1")
    assert not gone, "the process that is being forked must be killed first"
    host.forked(Forked("1", host.incarnation, 0, "no memory"))
    assert [state.state for state in gone] == ["stopping"]
