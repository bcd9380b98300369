"""Reading ``version.yaml``, the optional settings beside an artifact.

It comes with the artifact, from whoever made it. So it is read defensively (no aliases, no
tags that build objects, 1 MiB at most), and it can never grant trust: whether code in an
artifact may run is the operator's decision alone, and no key here says anything about it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

import msgspec

from hotswap.core.spec import VersionSettings
from hotswap.errors import ConfigError

FILE: Final = "version.yaml"
LARGEST: Final = 1024 * 1024
# Not every system has them: a link is then followed, and a pipe waited for.
_READ: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_MISNAMED: Final = ("version.yml", "version.json")
_SIGNATURE_KEYS: Final = ("inputs", "outputs", "kind", "feature_names")
_TENSOR_KEYS: Final = ("name", "datatype", "shape")
_SAMPLE_SUFFIXES: Final = (".json", ".npy", ".npz", ".csv")


def read_version_yaml(folder: Path) -> VersionSettings:
    """The settings in ``folder/version.yaml``; the defaults if there is no such file.

    A signature is written as
    ``{inputs: [{name, datatype, shape}], outputs: [...], kind: tensor, feature_names: [...]}``;
    ``kind`` is tensor or table. All but ``inputs`` may be left out, and so may a shape of ``[-1]``.

    Raises `ConfigError` naming the file, the key, and the keys that are allowed.
    """
    for name in _MISNAMED:
        if (folder / name).exists():
            raise ConfigError(f"{name} would not be read: rename it to {FILE}")
    content = _content(folder / FILE)
    if content is None:
        return VersionSettings()
    settings = settings_of(_parse(content))
    if isinstance(settings.samples, str) and not (folder / settings.samples).is_file():
        raise ConfigError(
            f"{FILE}: samples names {settings.samples!r}, but there is no such file beside it"
        )
    return settings


def settings_of(raw: object) -> VersionSettings:
    """Settings from plain values (what YAML or JSON gives). Raises `ConfigError`."""
    if raw is None:
        return VersionSettings()
    if not isinstance(raw, dict):
        raise ConfigError(f"{FILE}: write a mapping of keys to values, not a {_kind(raw)}")
    _check_keys("", raw, VersionSettings.__struct_fields__)
    values = dict(raw)
    if values.get("signature") is not None:
        values["signature"] = _signature(values["signature"])
    try:
        settings = msgspec.convert(values, VersionSettings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{FILE}: {_sentence(error)}") from None
    check_values(settings)
    return settings


def _content(file: Path) -> bytes | None:
    try:
        descriptor = os.open(file, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{FILE} cannot be read: {error.strerror or error}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{FILE} is not a plain file: write the settings into one")
        with open(descriptor, "rb", closefd=False) as opened:
            content = opened.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{FILE} cannot be read: {error.strerror or error}") from error
    finally:
        os.close(descriptor)
    if len(content) > LARGEST:
        raise ConfigError(f"{FILE} has more than {LARGEST} bytes: keep samples in a file beside it")
    return content


def _parse(content: bytes) -> object:
    import yaml

    class PlainLoader(yaml.SafeLoader):
        """Safe YAML without aliases (bombs) and without repeated keys (one would be ignored)."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise ConfigError(
                    f"{FILE}, line {mark.line + 1}: aliases (*name) are not supported"
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise ConfigError(f"{FILE}, line {line}: the key {key.value!r} is given twice")
                if isinstance(key.value, str):
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    # Dates stay the strings that they are in JSON.
    PlainLoader.yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        return yaml.load(content, Loader=PlainLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{FILE}, line {line}: {error.problem or 'this is not YAML'}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError) as error:
        first_line = str(error).splitlines()[0] if str(error) else "unreadable"
        raise ConfigError(f"{FILE} is not valid YAML: {first_line}") from None
    except RecursionError:
        raise ConfigError(f"{FILE} is nested too deeply") from None


def _check_keys(where: str, raw: dict[Any, Any], allowed: tuple[str, ...]) -> None:
    for key in raw:
        if key not in allowed:
            inside = f" in {where}" if where else ""
            raise ConfigError(
                f"{FILE}: unknown key {str(key)[:60]!r}{inside}; allowed keys: {', '.join(allowed)}"
            )


def _signature(raw: object) -> dict[str, object]:
    from hotswap.core.datatypes import NUMPY_OF  # numpy: only for those who declare a signature

    if not isinstance(raw, dict):
        raise ConfigError(
            f"{FILE}: signature must be a mapping with inputs and outputs, not a {_kind(raw)}"
        )
    _check_keys("signature", raw, _SIGNATURE_KEYS)
    signature: dict[str, object] = {"outputs": (), **raw}
    for side in ("inputs", "outputs"):
        specs = signature.get(side) or ()
        if not isinstance(specs, list | tuple) or (side == "inputs" and not specs):
            raise ConfigError(
                f"{FILE}: signature.{side} must be a list of mappings with name, datatype and shape"
            )
        signature[side] = [
            _tensor(f"signature.{side}[{index}]", spec, NUMPY_OF)
            for index, spec in enumerate(specs)
        ]
        names = [spec["name"] for spec in signature[side]]  # type: ignore[attr-defined]
        if len(set(map(str, names))) < len(names):
            raise ConfigError(f"{FILE}: signature.{side} gives a name twice")
    return signature


def _tensor(where: str, raw: object, datatypes: dict[str, Any]) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise ConfigError(f"{FILE}: {where} must be a mapping with name, datatype and shape")
    _check_keys(where, raw, _TENSOR_KEYS)
    tensor: dict[str, object] = {"shape": [-1], **raw}
    for key in ("name", "datatype"):
        if not isinstance(tensor.get(key), str) or not tensor[key]:
            raise ConfigError(f"{FILE}: {where} needs a {key} (a string)")
    if tensor["datatype"] not in datatypes:
        raise ConfigError(
            f"{FILE}: {where}: there is no datatype {tensor['datatype']!r}; use one of "
            f"{', '.join(datatypes)}"
        )
    shape = tensor["shape"]
    if (
        not isinstance(shape, list | tuple)
        or not shape
        or not all(type(size) is int and (size == -1 or 0 < size < 2**31) for size in shape)
    ):
        raise ConfigError(
            f"{FILE}: {where}: shape must list sizes, the batch first and -1 for any: [-1, 30]"
        )
    return tensor


def check_values(settings: VersionSettings) -> None:
    """Refuse numbers out of range and a samples file elsewhere. Raises `ConfigError`."""
    for key in ("instances", "threads", "batch_rows", "memory_mb"):
        value = getattr(settings, key)
        if value is not None and value < 1:
            raise ConfigError(f"{FILE}: {key} must be at least 1, not {value}")
    for key in ("load_seconds", "hang_seconds"):
        value = getattr(settings, key)
        if not 0 < value < 1e9:  # also refuses NaN
            raise ConfigError(f"{FILE}: {key} must be a positive number of seconds, not {value}")
    for key in ("parity_atol", "parity_rtol"):
        value = getattr(settings, key)
        if not 0 <= value < 1e9:
            raise ConfigError(f"{FILE}: {key} must be zero or a positive number, not {value}")
    samples = settings.samples
    if isinstance(samples, str) and (
        "/" in samples
        or "\\" in samples
        or not samples.isprintable()
        or samples.startswith(".")
        or not samples.endswith(_SAMPLE_SUFFIXES)
    ):
        raise ConfigError(
            f"{FILE}: samples must name a file beside it that ends in "
            f"{', '.join(_SAMPLE_SUFFIXES)}, or list rows; not {ascii(samples)[:80]}"
        )


def _sentence(error: msgspec.ValidationError) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.instances`" with the key first."""
    what, _, where = str(error).partition(" - at `$.")
    what = what.replace("`", "")
    return f"{where.rstrip('`')}: {what}" if where else what


def _kind(raw: object) -> str:
    return {list: "list", str: "string", bool: "boolean"}.get(type(raw), "number")
