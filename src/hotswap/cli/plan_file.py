"""Reading ``hotswap.yaml``, and what the server has of what it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec

from hotswap.cli.client import Client, CommandFailed, segment
from hotswap.cli.rollout_find import listed, seen
from hotswap.core.blueprint import Blueprint, WantedModel, WantedVersion, parse
from hotswap.core.blueprint_difference import Present
from hotswap.core.rollout_views import RolloutView
from hotswap.core.views import ModelView
from hotswap.errors import BadInput, HotswapError

LARGEST: Final = 1024 * 1024
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_PACKED: Final = ("model.tar.gz", "model.tgz")


def read(path: Path) -> Blueprint:
    """The file, with its relative paths made absolute from its folder.

    Raises `CommandFailed` naming the file, and the line or the key.
    """
    try:
        blueprint = parse(_parsed(path))
    except BadInput as problem:
        raise CommandFailed(f"{path}: {problem.message}") from None
    folder = path.absolute().parent
    return Blueprint({name: _rooted(model, folder) for name, model in blueprint.models.items()})


def look(client: Client, blueprint: Blueprint) -> Present:
    """What the server has, and what lies at the versions' paths if it is this machine's."""
    models = {view.name: view for view in _models(client.get("/api/v1/models"))}
    rollouts: dict[str, tuple[RolloutView, ...]] = {}
    for name in blueprint.models:
        if name in models:
            rollouts[name] = tuple(map(seen, listed(client, name)))
    contents: dict[tuple[str, str], str] = {}
    if client.local:
        for name, wanted in blueprint.models.items():
            there = {view.version for view in models[name].versions} if name in models else set()
            for version in wanted.versions.keys() & there:
                digest = _digest(wanted.versions[version])
                if digest:
                    contents[name, version] = digest
    return Present(models, rollouts, contents)


def model_of(client: Client, name: str) -> ModelView:
    """One model as the server has it now."""
    return _model(client.get(f"/api/v1/models/{segment(name)}"))


def _models(answer: Any) -> list[ModelView]:
    return [_model(each) for each in answer["models"]]


def _model(answer: Any) -> ModelView:
    try:
        return msgspec.convert(answer, ModelView)
    except msgspec.ValidationError as problem:
        raise CommandFailed(f"the server's model is not one of this release: {problem}") from None


def _rooted(model: WantedModel, folder: Path) -> WantedModel:
    versions = {name: _absolute(version, folder) for name, version in model.versions.items()}
    return msgspec.structs.replace(model, versions=versions)


def _absolute(version: WantedVersion, folder: Path) -> WantedVersion:
    uri = version.uri
    if uri is None or _SCHEME.match(uri):
        return version
    parts = (folder / Path(uri).expanduser()).parts
    return msgspec.structs.replace(version, uri=str(Path(*_without_dots(parts))))


def _without_dots(parts: tuple[str, ...]) -> list[str]:
    """``a/../b`` as ``b``: the server compares paths, and this one is read by people."""
    kept: list[str] = []
    for part in parts:
        if part == ".." and len(kept) > 1:
            kept.pop()
        else:
            kept.append(part)
    return kept


def _digest(version: WantedVersion) -> str:
    """The digest of a plain folder of this machine; "" for all else, which the server judges."""
    from hotswap.sources.copying import hash_files
    from hotswap.sources.manifest import digest_of, list_files

    folder = Path(version.uri or "")
    if version.uri is None or version.compile or not folder.is_dir():
        return ""
    try:
        files = list_files(folder)
        if not files or any(file.path in _PACKED for file in files):
            return ""
        return digest_of(hash_files(folder, files))
    except (OSError, HotswapError):
        return ""


def _parsed(path: Path) -> object:
    import yaml

    try:
        content = path.read_bytes()
    except OSError as problem:
        raise CommandFailed(f"{path} cannot be read: {problem.strerror}") from None
    if len(content) > LARGEST:
        raise CommandFailed(f"{path} has more than {LARGEST} bytes: it names things, no more")
    try:
        return yaml.load(content, Loader=_loader())
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        what = "it holds several documents" if "single document" in str(problem) else ""
        said = what or problem.problem or "this is not YAML"
        raise CommandFailed(f"{path}, line {line}: {said}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, RecursionError) as problem:
        first = (str(problem) or "unreadable").splitlines()[0]
        raise CommandFailed(f"{path} is not valid YAML: {first}") from None


def _loader() -> Any:
    """Safe YAML, in which a key that is given twice is an error and dates stay text."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            known: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                    continue
                if key.value in known:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                known.add(key.value)
            return node

    Loader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader
