"""Settings of the model registry and of what may be fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hotswap.config import Settings, credentials, fetching_environment
from hotswap.errors import ConfigError

HERE: dict[str, Any] = {"registry": "mlflow", "tracking_uri": "http://127.0.0.1:5000"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"registry": "mlflow"}, "no tracking_uri"),
        ({"tracking_uri": "http://127.0.0.1:5000"}, "--registry mlflow"),
        ({"registry_write": True}, "registry_write is given, and no registry"),
        ({"registry_models": ("a",)}, "registry_models is given, and no registry"),
        ({"registry_webhook_secret": "s"}, "registry_webhook_secret is given, and no registry"),
        ({"registry": "other", "tracking_uri": "http://a"}, "mlflow"),
        (HERE | {"tracking_uri": "sqlite:///mlflow.db"}, "such as http://"),
        (HERE | {"tracking_uri": "http://user:pw@host"}, "MLFLOW_TRACKING_USERNAME"),
        (HERE | {"registry_candidate_alias": "champion"}, "are both 'champion'"),
        (HERE | {"registry_stable_alias": "a/b"}, "alias"),
        (HERE | {"registry_percentage": 0}, "registry-percentage"),
        (HERE | {"registry_rollout": {"strategy": "canary"}}, "'strategy' is decided here"),
        (HERE | {"registry_rollout": {"config": {"min_pairs": -1}}}, "min_pairs"),
        ({"allow_uri": ("http://a/b",)}, "s3://models/"),
        ({"allow_uri": ("s3://models/*",)}, "pattern"),
        ({"fetch_mb": 0}, "fetch-mb"),
    ],
)
def test_half_a_registry_is_refused(values: dict[str, Any], said: str) -> None:
    """With a sentence that says what is missing or wrong."""
    with pytest.raises(ConfigError, match=said):
        Settings(**values)


def test_a_rollout_is_read_from_its_file_at_once(tmp_path: Path) -> None:
    """Relative to where the server is started; a child process gets what it held."""
    file = tmp_path / "challenge.yaml"
    file.write_text("config: {min_pairs: 50}\nbake_hours: 1\n")
    settings = Settings(**HERE, registry_rollout=file, registry_webhook_secret="s")
    file.unlink()
    again = Settings.from_json(settings.to_json())
    assert again.registry_rollout == {"config": {"min_pairs": 50}, "bake_hours": 1}
    assert again.webhook_secret() == "s"
    assert "'s'" not in repr(again)
    for content, said in (("- a", "name: value"), ("{", "YAML")):
        file.write_text(content)
        with pytest.raises(ConfigError, match=said):
            Settings(**HERE, registry_rollout=str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        Settings(**HERE, registry_rollout=tmp_path / "nowhere")


def test_all_of_it_can_stand_in_the_configuration_file(tmp_path: Path) -> None:
    """The rollout as keys, prefixes as a list."""
    file = tmp_path / "server.yaml"
    content = HERE | {
        "registry_rollout": {"alpha": 0.01},
        "registry_models": ["fraud", "churn"],
        "allow_uri": ["s3://models/fraud/"],
    }
    file.write_text(json.dumps(content))
    settings = Settings(config=file)
    assert settings.registry_rollout == {"alpha": 0.01}
    assert settings.registry_models == ("fraud", "churn")
    assert settings.allow_uri == ("s3://models/fraud",)


def test_credentials_reach_the_fetching_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not workers, hosts, or jobs that may run a model's code."""
    from hotswap.config import child_environment

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.setenv("HOTSWAP_TOKEN", "secret")
    assert "secret" not in child_environment().values()
    assert set(credentials()) >= {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN"}
    given = fetching_environment()
    assert given["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert given["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert "HOTSWAP_TOKEN" not in given
