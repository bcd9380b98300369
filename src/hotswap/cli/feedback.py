"""``hotswap feedback``: what turned out to be true, from a file to the server."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from hotswap.cli import output
from hotswap.cli.client import (
    DEFAULT_URL,
    AsJson,
    Client,
    CommandFailed,
    Token,
    Unreachable,
    Url,
    data_url,
)
from hotswap.cli.feedback_lines import Columns, Line, lines

BATCH: Final = 1000
#: So many bad lines are named; the others are counted.
NAMED: Final = 20
#: After so many refusals by the server it is not one line that is wrong.
MOST_REFUSED: Final = 1000
PATIENCE_SECONDS: Final = 120.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0
_AGAIN: Final = (429, 503)
#: Answers that are about what was sent, not about who sends it.
_ABOUT_IT: Final = (400, 413)


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(feedback)


def feedback(
    file: Annotated[
        str,
        typer.Argument(
            help="CSV with a line of names, a JSON object a line, or a JSON list; - for stdin.",
            metavar="FILE",
        ),
    ],
    id_column: Annotated[
        str, typer.Option("--id-column", help="What the request's id is called.", metavar="NAME")
    ] = "request_id",
    label_column: Annotated[
        str, typer.Option("--label-column", help="What the label is called.", metavar="NAME")
    ] = "label",
    reward_column: Annotated[
        str, typer.Option("--reward-column", help="What the reward is called.", metavar="NAME")
    ] = "reward",
    row_column: Annotated[
        str,
        typer.Option(
            "--row-column", help="What the row within the request is called.", metavar="NAME"
        ),
    ] = "row",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first line that cannot be sent.")
    ] = False,
    url: Url = DEFAULT_URL,
    data_address: Annotated[
        str | None,
        typer.Option(
            "--data-url",
            envvar="HOTSWAP_DATA_URL",
            help="Address that serves predictions; without it the control API is asked for it.",
            metavar="URL",
        ),
    ] = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Send labels or rewards of answered requests, hours or weeks later.

    A label belongs to a request's id and, where the request had several rows, to a row. Sending
    one again is harmless: the last one counts. Lines without a label yet are passed over, and other
    columns are not sent.

    Exits with 1 if a line could not be sent, after all others were; it is named by its number.

    Examples:

    `hotswap feedback labels.csv`

    `hotswap feedback outcomes.jsonl --id-column prediction_id --label-column defaulted`
    """
    columns = Columns(id_column, label_column, reward_column, row_column)
    if len(set(columns.names())) < len(columns.names()):
        raise CommandFailed("the columns of the id, label, reward and row must differ")
    with _opened(file) as (source, name):
        if data_address is None:
            with Client(url, token) as control:
                data_address = data_url(control.get("/api/v1/info"), control.url)
        with Client(data_address, token) as client, _progress(as_json) as tell:
            sending = Sending(client, strict, tell)
            with closing(lines(source, name, columns)) as found:
                sending.all(found)
    _close(sending, name, as_json)


class Sending:
    """Labels on their way. Counts of lines: ``sent``, ``waiting`` (without a label yet), and
    ``refused``, of which the first are in ``problems`` by line; ``accepted``: of labels, by the server.
    """

    def __init__(
        self,
        client: Client,
        strict: bool,
        tell: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._strict = strict
        self._tell = tell
        self._clock = clock
        self._sleep = sleep
        self._by_server = 0
        self._stopped = False
        self.sent = self.waiting = self.refused = self.accepted = 0
        self.problems: list[tuple[int, str]] = []

    def all(self, found: Iterator[Line]) -> None:
        """Send them in batches. Raises `CommandFailed` where nothing more can be sent."""
        batch: list[Line] = []
        for line in found:
            if line.body is not None:
                batch.append(line)
            elif not line.problem:
                self.waiting += 1
            elif self._strict:
                self._batch(batch)
                if not self._stopped:  # else an earlier one was the first
                    self._refuse(line.number, line.problem)
                return
            else:
                self._refuse(line.number, line.problem)
            if len(batch) == BATCH:
                self._batch(batch)
                batch = []
                if self._stopped:
                    return
                self._tell(f"{self.sent:,} labels sent")
        self._batch(batch)

    def _batch(self, batch: list[Line]) -> None:
        """Send it; where the server refuses it, its halves, down to the lines that are wrong."""
        if not batch or self._stopped:
            return
        try:
            answer = self._post([line.body for line in batch])
        except CommandFailed as problem:
            if problem.status not in _ABOUT_IT:
                raise
            if len(batch) > 1:
                half = len(batch) // 2
                self._batch(batch[:half])
                self._batch(batch[half:])
                return
            self._refuse(batch[0].number, problem.message)
            self._by_server += 1
            if self._by_server >= MOST_REFUSED:
                raise CommandFailed(
                    f"the server refused {MOST_REFUSED:,} lines, the last (line {batch[0].number}) "
                    f"because: {problem.message}; {self.sent:,} were sent"
                ) from None
            return
        self.sent += len(batch)
        accepted = answer.get("accepted") if isinstance(answer, dict) else None
        self.accepted += accepted if isinstance(accepted, int) else len(batch)

    def _post(self, bodies: list[Any]) -> Any:
        """Until the server takes it, with pauses: what was sent twice counts once."""
        began, pause = self._clock(), _FIRST_PAUSE
        while True:
            try:
                return self._client.call("POST", "/feedback", bodies)
            except CommandFailed as problem:
                if not isinstance(problem, Unreachable) and problem.status not in _AGAIN:
                    raise
                if self._clock() - began >= PATIENCE_SECONDS:
                    raise CommandFailed(
                        f"{problem.message}; {self.sent:,} labels were sent until then: sending "
                        "the file again is harmless",
                        problem.status,
                    ) from None
                self._tell(f"waiting for the server: {problem.message}")
                asked = problem.retry_after or 0.0
            self._sleep(max(min(pause, _LONGEST_PAUSE), min(asked, PATIENCE_SECONDS)))
            pause *= 2

    def _refuse(self, number: int, why: str) -> None:
        self.refused += 1
        self._stopped = self._strict
        if len(self.problems) < NAMED:
            self.problems.append((number, why))


def _close(sending: Sending, name: str, as_json: bool) -> None:
    """Say what came of it. Raises if a line was refused."""
    if as_json:
        problems = [{"line": number, "problem": why} for number, why in sending.problems]
        counts = {
            each: getattr(sending, each) for each in ("sent", "accepted", "waiting", "refused")
        }
        output.emit({"file": name, **counts, "problems": problems})
        if sending.refused:
            raise typer.Exit(1)
        return
    for number, why in sending.problems:
        output.note(f"line {number}: {why}")
    more = sending.refused - len(sending.problems)
    if more:
        output.note(f"and {more:,} more")
    output.say(("sent ", "bold green"), f"{sending.sent:,} labels of {name}")
    if sending.waiting:
        output.say(f"{sending.waiting:,} lines have no label yet")
    if sending.refused:
        one = "1 line" if sending.refused == 1 else f"{sending.refused:,} lines"
        raise CommandFailed(f"{one} of {name} could not be sent")


@contextmanager
def _opened(file: str) -> Iterator[tuple[IO[bytes], str]]:
    if file == "-":
        yield sys.stdin.buffer, "stdin"
        return
    path = Path(file)
    try:
        source = path.open("rb", buffering=0)
    except OSError as problem:
        raise CommandFailed(f"{file} cannot be read: {problem.strerror}") from None
    with source:
        yield source, path.name


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """How far it is, on stderr, if someone can see it."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text("sending labels")) as status:
        yield lambda text: status.update(Text(output.plain(text)))
