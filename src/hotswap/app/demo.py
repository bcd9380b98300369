"""`hotswap demo`: train, serve, switch and roll out under live traffic, and give an account."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from hotswap.app import demo_account, demo_verdicts
from hotswap.app.demo_bench import DemoModel
from hotswap.app.demo_models import require_libraries, train
from hotswap.app.demo_rollouts import CASES, Screen, Told, Watching, roll_out
from hotswap.app.demo_server import DemoFailed, DemoServer, Move
from hotswap.app.demo_traffic import Answer, Traffic
from hotswap.errors import HotswapError
from hotswap.sources.manifest import build_manifest, digest_of

FOLDER: Final = Path("demo-models")


#: What is asked of the candidates, and why.
REASONS: Final = (
    "Each must show, at odds of 20 to 1: errors and invalid outputs at most 1 point above stable's,",
    "median latency at most twice stable's, and in the shadow at most 1 answer in 4 unlike stable's.",
    "The margins are wide, as a demo has a minute: narrower ones take more requests to prove.",
)


@dataclass(frozen=True)
class Pace:
    """How long each stretch of traffic lasts, in seconds."""

    steady: float = 2.0
    short: float = 1.0


def main(
    exit: bool = False,
    host: str = "127.0.0.1",
    port: int = 8080,
    control_port: int = 8081,
    *,
    as_json: bool = False,
    folder: Path = FOLDER,
    console: Console | None = None,
    pace: Pace | None = None,
    screen: Screen | None = None,
) -> int:
    """Run the demo; stay up until Ctrl-C unless ``exit``.

    ``as_json`` writes the account to standard output as one JSON object, and the rest to standard
    error. ``port`` and ``control_port`` are taken if they are free, else others. ``folder`` is made, and
    what an earlier demo left in it is replaced. ``screen`` draws rollouts on a terminal. Returns 0, or 1
    if the server could not be started, a request failed, an answer was not the one of the version
    it names, a rollout did not end as it had to, or its journal does not verify.
    """
    console = console or Console(stderr=as_json)
    show = demo_account.write if as_json else demo_account.show
    try:
        if platform.system() == "Windows":
            raise DemoFailed("'hotswap serve', which it starts, needs Linux or macOS")
        require_libraries()
        with workplace(folder) as place:
            server = DemoServer(place, host, port, control_port)
            play = Play(console, place, server, show, pace or Pace(), screen)
            return asyncio.run(play.run(exit=exit))
    except HotswapError as problem:
        if as_json:
            demo_account.emit({"ok": False, "error": str(problem)})
        console.print(f"[red]The demo failed:[/] {escape(str(problem))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 0


@contextlib.contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """``folder``, emptied of an earlier demo and ours until the block ends.

    If another demo is using it, a temporary folder instead.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock, contextlib.ExitStack() as stack:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            place = folder.absolute()
        except BlockingIOError:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hotswap-demo-")))
        for name in ("models", "trained", "state", "reports"):
            shutil.rmtree(place / name, ignore_errors=True)
        (place / "models").mkdir()
        yield place


def publish(model: DemoModel, version: str, place: Path) -> None:
    """Put a trained version where the server looks: whole at once, as a rename is."""
    source = place / "trained" / model.name / version
    target = place / "models" / model.name / version
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


Show = Callable[
    [Console, Sequence[DemoModel], Sequence[Answer], Sequence[Move], Sequence[Told]], bool
]


def coded(models: Sequence[DemoModel]) -> list[Path]:
    """The folders of versions that are code: the operator has to trust them one by one."""
    folders = [version.folder for model in models for version in model.versions]
    return [folder for folder in folders if (folder / "model.py").is_file()]


@dataclass(frozen=True)
class Play:
    """One run: train, serve, move the traffic, roll out, account for it."""

    console: Console
    place: Path
    server: DemoServer
    show: Show
    pace: Pace
    screen: Screen | None = None

    async def run(self, *, exit: bool) -> int:
        """All of it, or until a signal; the exit code. The server has ended when it returns."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        work = asyncio.create_task(self.serve())
        stop = asyncio.create_task(stopping.wait())
        clean = True  # until the account says otherwise; a user may stop before it
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                clean = work.result()
                if not exit and clean:
                    urls(self.console, self.server)
                    await self.stay(stopping)
        finally:
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)
            code = await self.server.stop()
        if code != 0:
            self.console.print(
                f"[red]The server ended with code {code}:[/] its log is {self.server.log}"
            )
        return 0 if clean and code == 0 else 1

    async def stay(self, stopping: asyncio.Event) -> None:
        """Until a signal; raises DemoFailed if the server ends before."""
        while not stopping.is_set():
            self.server.require_alive()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), 0.5)
        self.console.print("\nStopping.")

    async def serve(self) -> bool:
        """Train and serve, switch and roll out under traffic, and show the account; whether all is
        as it has to be.
        """
        began = time.monotonic()
        self.console.print("[bold]1. Training real models on scikit-learn's bundled data[/]")
        models = await asyncio.to_thread(train, self.place / "trained", self.line)
        took = time.monotonic() - began
        self.line(f"trained in {took:.1f} s; half of each data set is held out\n")
        trusted = [digest_of(build_manifest(folder)) for folder in coded(models)]
        for model in models:
            publish(model, "v1", self.place)
        self.console.print("[bold]2. Serving the first version of each[/]: hotswap serve")
        began = time.monotonic()
        await self.server.start(trusted)
        self.line(f"ready after {time.monotonic() - began:.1f} s on {self.server.url}\n")
        self.console.print("[bold]3. Live traffic from held-out rows, and switches under it[/]")
        # Half of the connections ask the model that is rolled out.
        first, others = models[0], models[1:]
        plan = [first] * 4 + [model for model in others for _ in range(2)]
        traffic = Traffic(self.server.host, self.server.port, plan)
        try:
            self.line(f"{len(plan)} connections ask until the end; only v1 of each model is there")
            moves = await self.switches(others, traffic)
            told = await self.rollouts(first, traffic)
        finally:
            await traffic.stop()
        self.console.print()
        clean = self.show(self.console, models, traffic.answers, moves, told)
        for path in demo_verdicts.reports(told, self.place / "reports"):
            self.console.print(f"Written: {path}", highlight=False, markup=False, soft_wrap=True)
        return clean

    async def switches(self, models: Sequence[DemoModel], traffic: Traffic) -> list[Move]:
        """New versions appear, take over and are taken back, while ``traffic`` keeps asking."""
        await asyncio.sleep(self.pace.steady)
        for model in models:
            publish(model, "v2", self.place)
        self.line("new version folders appear; the server notices them and changes nothing")
        for model in models:
            await self.server.registered(model.name, "v2")
        moves = []
        for model in models:
            moves.append(await self.move(model, "switch", "v2"))
            await asyncio.sleep(self.pace.short)
            await traffic.covered(model, "v2")
        moves.append(await self.move(models[0], "rollback"))
        await asyncio.sleep(self.pace.short)
        return moves

    async def rollouts(self, model: DemoModel, traffic: Traffic) -> list[Told]:
        """One version after the other is tried, and let in or turned away by evidence."""
        self.console.print("\n[bold]4. Rollouts that decide by evidence[/]: hotswap rollout start")
        for sentence in REASONS:
            self.line(sentence)
        told = []
        for case in CASES:
            self.console.print(f"\n   [bold]{escape(case.title)}[/]", highlight=False)
            publish(model, case.version, self.place)
            await self.server.registered(model.name, case.version)
            watching = Watching(self.console, self.screen)
            told.append(await roll_out(self.server, case, model.name, traffic.answers, watching))
            await asyncio.sleep(self.pace.short)
        return told

    async def move(self, model: DemoModel, kind: str, version: str | None = None) -> Move:
        """A switch or a rollback, and a line about it."""
        move = await self.server.move(model.name, kind, version)
        warm = demo_account.prepared(move)
        how = warm if warm == "was warm" else f"loaded and warm in {warm}"
        self.line(
            f"{move.kind} {move.model} {move.source} → {move.target}: {how}, "
            f"flipped in {demo_account.flipped(move)}"
        )
        return move

    def line(self, text: str) -> None:
        """One indented line of progress."""
        self.console.print(f"   {text}", highlight=False, markup=False, soft_wrap=True)


def urls(console: Console, server: DemoServer) -> None:
    """Where everything is, and commands to try."""
    row = ", ".join(["1"] * 64)
    lines = [
        "[bold]It stays up; Ctrl-C stops it.[/]",
        f"  predictions  {server.url}",
        f"  control      {server.control_url}",
        f"  API pages    {server.control_url}/docs",
        f"  metrics      {server.control_url}/metrics",
        "",
        "Try, in another terminal:",
        f"  curl -s {server.url}/v2/models/cancer",
        f"  curl -s {server.url}/predict -H 'Content-Type: application/json' "
        f'-d \'{{"model": "digits", "features": [{row}]}}\'',
        f"  hotswap models list --url {server.control_url}",
        f"  hotswap rollout list --url {server.control_url}",
        f"  hotswap rollout verify cancer --url {server.control_url}",
        f"  hotswap switch digits v2 --url {server.control_url}",
    ]
    console.print("\n".join(lines), soft_wrap=True, highlight=False)
