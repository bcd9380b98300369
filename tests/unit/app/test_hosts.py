"""The supervisor's hosts at the node's end."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from hotswap.app.hosts import Hosts
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.ipc.messages import Fork, HostSpec, HostState
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
