"""MLflow's model registry: what its aliases say, its artifacts, and what it is told.

Runs in the process that fetches versions (`hotswap.app.job`), never in control. All goes through
the tracking server: what a version's ``source`` names is read only if it is the server's own
artifact store, a place the operator allows, or a folder the operator allows.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from hotswap.core.registry_views import Fetched, Listed, Told
from hotswap.core.registry_wishes import Letter
from hotswap.core.uris import ModelReference, Place, check_allowed, parse_remote, scheme_of
from hotswap.errors import (
    BadInput,
    LoadError,
    MissingDependency,
    NotFound,
    RegistryRefused,
    Unavailable,
)
from hotswap.sources import remote
from hotswap.sources.copying import Progress
from hotswap.sources.locate import locate
from hotswap.sources.manifest import ignored
from hotswap.sources.remote import FetchLimits, RemoteFile

_PAGE: Final = 200
_MOST_MODELS: Final = 10_000
_DEEPEST: Final = 64
_GONE: Final = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_PROXIED: Final = "mlflow-artifacts"


class MlflowRegistry:
    """One tracking server, through MLflow's own client. Blocks; raises hotswap's errors.

    ``client``: for tests. An outage is `Unavailable`.
    """

    def __init__(self, uri: str, client: Any = None) -> None:
        self._uri = uri
        self._client = client if client is not None else _client(uri)

    # --- looking

    def look(
        self,
        names: Sequence[str],
        stable: str,
        candidate: str,
        asked: dict[str, list[str]],
    ) -> list[Listed]:
        """The models of these names; with none given, all of which a version serves.

        ``stable``, ``candidate``: the aliases. ``asked``: versions, by the models followed so far,
        that are looked for where nothing names them any more; those models are told of too.
        """
        with _outages():
            found = {each.name: each for each in (self._named(names) if names else self._all())}
            told = []
            for name, model in found.items():
                listed = self._listed(model, stable, candidate, asked.get(name, []))
                if names or name in asked or listed.stable or listed.production:
                    told.append(listed)
            missing = [name for name in (*names, *asked) if name not in found]
            return [*told, *(Listed(name, missing=True) for name in dict.fromkeys(missing))]

    def _all(self) -> Iterator[Any]:
        token, count = None, 0
        while True:
            page = self._client.search_registered_models(max_results=_PAGE, page_token=token)
            yield from page
            token, count = page.token, count + len(page)
            if not token or count > _MOST_MODELS:
                return

    def _named(self, names: Sequence[str]) -> Iterator[Any]:
        for name in names:
            try:
                yield self._client.get_registered_model(name)
            except Exception as error:
                if not _is_gone(error):
                    raise

    def _listed(self, model: Any, stable: str, candidate: str, asked: Sequence[str]) -> Listed:
        aliases = {alias: str(version) for alias, version in (model.aliases or {}).items()}
        stages = {
            each.current_stage: str(each.version)
            for each in model.latest_versions or ()
            if each.current_stage in ("Production", "Staging")
        }
        named = {aliases.get(stable), aliases.get(candidate), *stages.values()}
        gone = [v for v in asked if v not in named and not self._exists(model.name, v)]
        return Listed(
            model.name,
            aliases.get(stable),
            aliases.get(candidate),
            stages.get("Production"),
            stages.get("Staging"),
            tuple(gone),
        )

    def _exists(self, name: str, version: str) -> bool:
        try:
            return str(self._client.get_model_version(name, version).status) != "DELETED"
        except Exception as error:
            if _is_gone(error):
                return False
            raise

    # --- fetching

    def fetch(
        self,
        wanted: ModelReference,
        into: Path,
        limits: FetchLimits,
        prefixes: Sequence[str],
        roots: Sequence[Path],
        progress: Progress | None = None,
    ) -> Fetched:
        """Its files, in the existing empty folder ``into``; a local source is only located.

        ``prefixes``: of object stores; ``roots``: folders that may be read here. Raises
        `NotFound`, `BadInput` for a source that is not allowed, `LoadError`, `Unavailable`.
        """
        with _outages():
            version = self._version(wanted)
            number = str(version.version)
            source = self._source(version, number)
        origin = {"name": version.name, "version": number, "run_id": version.run_id or ""}
        path = self._copy(source, into, limits, prefixes, roots, progress)
        return Fetched(
            str(path),
            f"models:/{version.name}/{number}",
            {"mlflow": origin},
            (version.description or "")[:10_000],
        )

    def _version(self, wanted: ModelReference) -> Any:
        try:
            if wanted.alias is not None:
                return self._client.get_model_version_by_alias(wanted.name, wanted.alias)
            return self._client.get_model_version(wanted.name, wanted.version)
        except Exception as error:
            if _is_gone(error) or ("alias" in str(error) and "not found" in str(error)):
                what = f"alias {wanted.alias!r}" if wanted.alias else f"version {wanted.version!r}"
                raise NotFound(f"the registry's model {wanted.name!r} has no {what}") from None
            raise

    def _source(self, version: Any, number: str) -> str:
        """Where the files lie, by the registry's word."""
        uri = str(self._client.get_model_version_download_uri(version.name, number))
        if scheme_of(uri) == "models":  # MLflow 3 keeps a model apart from the run that logged it
            uri = str(self._client.get_logged_model(uri.rsplit("/", 1)[1]).artifact_location)
        return uri

    def _copy(
        self,
        source: str,
        into: Path,
        limits: FetchLimits,
        prefixes: Sequence[str],
        roots: Sequence[Path],
        progress: Progress | None,
    ) -> Path:
        scheme = scheme_of(source)
        if scheme == _PROXIED:
            parts = urlsplit(source)
            if parts.netloc and parts.netloc != urlsplit(self._uri).netloc:
                raise BadInput(
                    "the version's files lie on another tracking server than tracking_uri names"
                )
            with _outages():
                return self._download(source, into, limits, progress)
        if scheme in ("s3", "gs"):
            place = parse_remote(source)
            assert isinstance(place, Place)
            check_allowed(place, prefixes)
            return remote.fetch(place, into, limits, progress=progress)
        if scheme in (None, "file"):
            return locate(source, roots)
        raise BadInput(
            f"the version's files lie at a {scheme}: address, which this server does not read: let "
            "the tracking server serve artifacts (--serve-artifacts)"
        )

    def _download(
        self, source: str, into: Path, limits: FetchLimits, progress: Progress | None
    ) -> Path:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        store: Any = get_artifact_repository(source, tracking_uri=self._uri)
        files = list(_walk(store, None, 0, limits, [0]))
        remote.check_limits(files, limits, "the version's folder in the registry")
        target = into / "model"
        target.mkdir()
        total, done = sum(max(file.size, 0) for file in files), 0
        for file in files:
            with _at_most(limits.bytes - done):
                store.download_artifacts(file.path, str(target))
            size = (target / file.path).lstat().st_size
            if file.size not in (-1, size):
                raise LoadError(f"{file.path!a} in the registry is being written: try again")
            done += size
            if progress is not None:
                progress(done, max(total, done))
        return target

    # --- telling

    def tell(self, name: str, letter: Letter, stable: str, report: str) -> Told:
        """Set the tags, and move the alias if it stands where it is to be moved from.

        Done again it changes nothing. The verdict comes last: who sees it sees the rest.
        ``stable``: the alias; ``report``: the rollout's address.
        """
        with _outages():
            try:
                self._tag(name, letter.version, "hotswap.report", report)
            except Exception as error:
                if not _is_gone(error):
                    raise
                return Told(
                    None, False, f"version {letter.version} is not in the registry any more"
                )
            self._tag(name, letter.version, "hotswap.rollout", letter.rollout)
            answer = self._move(name, letter, stable) if letter.move_to else Told(None, False)
            self._tag(name, letter.version, "hotswap.verdict", letter.verdict)
            return answer

    def _move(self, name: str, letter: Letter, alias: str) -> Told:
        now = self._stands(name, alias)
        if now == letter.move_to:
            return Told(now, True)
        if now != (letter.move_from or None):
            left = (
                f"the alias {alias!r} was moved to {now or 'nothing'} meanwhile: it is left there"
            )
            return Told(None, False, left)
        self._client.set_registered_model_alias(name, alias, letter.move_to)
        return Told(letter.move_to, True)

    def _tag(self, name: str, version: str, key: str, value: str) -> None:
        self._client.set_model_version_tag(name, version, key, value)

    def _stands(self, name: str, alias: str) -> str | None:
        aliases = self._client.get_registered_model(name).aliases or {}
        return str(aliases[alias]) if alias in aliases else None


def _walk(
    store: Any, folder: str | None, depth: int, limits: FetchLimits, count: list[int]
) -> Iterator[RemoteFile]:
    if depth > _DEEPEST:
        raise LoadError(f"the artifact's folders are more than {_DEEPEST} deep")
    for entry in store.list_artifacts(folder):
        path = remote.member(f"/{entry.path}", "/")
        if not path.startswith(f"{folder}/" if folder else "") or path == folder:
            raise LoadError(f"{path!a} is listed, and lies outside of what was asked for")
        if any(ignored(part) for part in path.split("/")):
            continue
        count[0] += 1
        if count[0] > 2 * limits.files:  # folders count too, or they could go on for ever
            raise remote.too_many(limits)
        if entry.is_dir:
            yield from _walk(store, path, depth + 1, limits, count)
        else:
            size = entry.file_size
            yield RemoteFile(path, size if isinstance(size, int) else -1)


@contextmanager
def _at_most(most: int) -> Iterator[None]:
    """No file that this process writes grows beyond ``most`` bytes, whatever a listing said.

    Python ignores the signal: a write beyond it is an error.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    hard = before[1]
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(soft, 0), hard))
    try:
        yield
    except Exception as error:
        if "File too large" in str(error):
            raise remote.too_large(most) from None
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def _outages() -> Iterator[None]:
    """MLflow's errors as ours: what cannot be asked is `Unavailable`, what it refuses
    `RegistryRefused`, and what is not allowed, which may change, `LoadError`.
    """
    try:
        yield
    except (BadInput, LoadError, NotFound, Unavailable, MissingDependency):
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        status = getattr(error, "get_http_status_code", lambda: 500)()
        refused = {400: RegistryRefused, 403: LoadError, 404: RegistryRefused}.get(status)
        if type(error).__name__ in ("MlflowException", "RestException") and refused is not None:
            raise refused(f"the registry refuses: {line}") from error
        raise Unavailable(
            f"the registry cannot be asked: {type(error).__name__}: {line}"
        ) from error


def _is_gone(error: Exception) -> bool:
    return getattr(error, "error_code", "") in _GONE


def _client(uri: str) -> Any:
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise MissingDependency(
            "the registry needs the package mlflow-skinny: pip install 'hotswap[mlflow]'"
        ) from None
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
