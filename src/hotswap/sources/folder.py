"""Watching a models folder by looking at it now and then.

Polling sees what any file system (network ones too) shows, and needs no library. A version is
reported once it is complete: two looks at least ``settle_seconds`` apart saw the same files,
sizes and times. A writer can say it exactly with a file ``.incomplete`` in the version's folder
(or the model's) while it writes, or by writing to a hidden name and renaming.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from hotswap.errors import ConfigError, LoadError
from hotswap.ports import Clock
from hotswap.sources.layout import DEFAULT_MODEL, Children, Layout, decide, name_problem
from hotswap.sources.manifest import list_files


class FoundVersion(msgspec.Struct, frozen=True):
    """One complete version: its names, and its folder."""

    model: str
    version: str
    path: Path


class Problem(msgspec.Struct, frozen=True):
    """Something in the models folder that cannot be served. ``path`` is relative to it."""

    path: str
    reason: str


class Look(msgspec.Struct, frozen=True):
    """What one look at the folder gave. ``pending``: versions that may still be being written."""

    found: tuple[FoundVersion, ...]
    problems: tuple[Problem, ...]
    pending: int


class _Seen(msgspec.Struct, frozen=True):
    listing: int
    since: float
    settled: bool


class FolderSource:
    """`hotswap.ports.VersionSource` over ``root`` (see `hotswap.sources.layout`).

    Every ``poll_seconds`` it looks; whatever has not changed for ``settle_seconds`` is reported.
    At the first look that is judged by the files' own times, so that a start need not wait.
    """

    def __init__(
        self, root: Path, poll_seconds: float, settle_seconds: float, clock: Clock
    ) -> None:
        self._root = root
        self._poll_seconds = poll_seconds
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._layout: Layout | None = None
        self._seen: dict[Path, _Seen] = {}
        self._last: Look | None = None
        self._problems: list[Problem] = []

    @property
    def last(self) -> Look:
        """The last look (an empty one before the first)."""
        return self._last or Look((), (), 0)

    async def watch(self) -> AsyncIterator[Sequence[FoundVersion]]:
        """Everything that is complete: at once, and again each time that or a problem changes.

        Raises `ConfigError` if the folder cannot be read at the first look; later that is a
        problem in `last`, and what was found before stays.
        """
        reported: Look | None = None
        while True:
            look = await asyncio.to_thread(self.look)
            if reported is None or (look.found, look.problems) != (
                reported.found,
                reported.problems,
            ):
                reported = look
                yield look.found
            await asyncio.sleep(self._poll_seconds)

    def look(self) -> Look:
        """Look once, now by the clock. Blocking; call from one thread at a time."""
        first = self._last is None
        now, wall = self._clock.monotonic(), self._clock.wall()
        self._problems = []
        try:
            top = Children(self._root)
        except OSError as error:
            if self._last is None:
                raise ConfigError(
                    f"the models folder {self._root} cannot be read "
                    f"({error.strerror or error}): check the path and its permissions"
                ) from error
            unreadable = Problem(".", f"the models folder cannot be read: {error.strerror}")
            self._last = Look(self._last.found, (unreadable,), 0)
            return self._last
        candidates = self._candidates(top)
        found: list[FoundVersion] = []
        pending = 0
        seen: dict[Path, _Seen] = {}
        for candidate in candidates:
            state = self._inspect(candidate, now, wall if first else None)
            if state is not None:
                seen[candidate.path] = state
            if state is not None and state.settled:
                found.append(candidate)
            elif state is not None:
                pending += 1
        self._seen = seen
        self._last = Look(tuple(found), tuple(self._problems), pending)
        return self._last

    def _candidates(self, top: Children) -> list[FoundVersion]:
        """Every folder that would be a version, with valid names."""
        self._refuse_links("", top)
        stray = top.model_file()
        if stray is not None:
            self._problem(stray, "is directly in the models folder: move it to <model>/<version>/")
        below: dict[str, Children | None] = {}
        for name in top.folders:
            below[name] = self._children(name)
        layout = self._layout
        if layout is None or not below:
            layout, sure = decide(below, self._root)
            # Once sure it stays: a half-copied folder must not turn everything else over.
            self._layout = layout if sure else None
        if layout is None:
            return []
        if layout == "versions":
            return self._flat(below)
        candidates: list[FoundVersion] = []
        for model, children in below.items():
            if (problem := name_problem("model", model)) is not None:
                self._problem(model, problem)
            elif children is None:
                candidates += self._kept(model)
            elif not children.held:
                candidates += self._versions_of(model, children)
        return candidates

    def _versions_of(self, model: str, children: Children) -> list[FoundVersion]:
        self._refuse_links(model, children)
        stray = children.model_file()
        if stray is not None:
            self._problem(f"{model}/{stray}", f"is in no version's folder: move it to {model}/v1/")
        versions = []
        for version in children.folders:
            if (problem := name_problem("version", version)) is not None:
                self._problem(f"{model}/{version}", problem)
            else:
                versions.append(FoundVersion(model, version, self._root / model / version))
        return versions

    def _flat(self, below: dict[str, Children | None]) -> list[FoundVersion]:
        versions = []
        for version, children in below.items():
            if (problem := name_problem("version", version)) is not None:
                self._problem(version, problem)
            elif children is None or children.files or children.held:
                path = self._root / version
                if children is not None or path in self._seen:
                    versions.append(FoundVersion(DEFAULT_MODEL, version, path))
            elif children.folders:
                self._problem(
                    version, "holds no model file, while the folders beside it are versions"
                )
        return versions

    def _inspect(self, candidate: FoundVersion, now: float, wall: float | None) -> _Seen | None:
        """How settled a version's folder is; None if there is nothing to report in it."""
        before = self._seen.get(candidate.path)
        relative = candidate.path.relative_to(self._root).as_posix()
        try:
            if os.path.lexists(candidate.path / ".incomplete"):
                return None
            files = list_files(candidate.path)
            newest = max((seen.mtime_ns for seen in files), default=0)
            newest = max(newest, os.stat(candidate.path).st_mtime_ns)
        except FileNotFoundError:
            return None
        except (LoadError, OSError) as error:
            self._problem(relative, str(error))
            return before if before is not None and before.settled else None
        if not files:
            return None
        listing = hash(tuple((seen.path, seen.size, seen.mtime_ns) for seen in files))
        if wall is not None:  # the first look
            settled = newest / 1e9 <= wall - self._settle_seconds
            return _Seen(listing, now, settled)
        if before is None or before.listing != listing:
            if before is not None and before.settled:
                self._problem(
                    relative,
                    "was changed after it was found: what was registered stays; "
                    "give the new content a new version",
                )
                return before
            return _Seen(listing, now, False)
        settled = before.settled or now - before.since >= self._settle_seconds
        return _Seen(listing, before.since, settled)

    def _children(self, name: str) -> Children | None:
        try:
            return Children(self._root / name)
        except OSError as error:
            self._problem(name, f"cannot be read: {error.strerror or error}")
            return None

    def _kept(self, model: str) -> list[FoundVersion]:
        """What was found of a model whose folder cannot be read just now."""
        return [version for version in self.last.found if version.model == model]

    def _refuse_links(self, below: str, children: Children) -> None:
        for name in sorted(children.links):
            path = f"{below}/{name}" if below else name
            self._problem(path, "is a symbolic link, which is not followed: move the folder here")

    def _problem(self, path: str, reason: str) -> None:
        shown = path if path.isprintable() else ascii(path)[1:-1]
        self._problems.append(Problem(shown, reason))
