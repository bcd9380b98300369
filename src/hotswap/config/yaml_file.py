"""Settings that stand in a YAML file, as a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hotswap.errors import ConfigError


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """What the file says, by name. Raises `ConfigError`, which calls the file ``what``."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{what} {path} cannot be read: {reason}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{what} {path} is not valid YAML: {line}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{what} {path} must hold settings, as 'name: value'")
    return content


__all__ = ["read_mapping"]
