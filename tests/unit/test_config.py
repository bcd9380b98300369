"""Settings: where they come from, which wins, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hotswap.config import Settings, default_workers, is_loopback, machine_memory
from hotswap.core.spec import Limits
from hotswap.core.strategy import parse
from hotswap.errors import ConfigError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("HOTSWAP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _yaml(text: str) -> Path:
    path = Path("hotswap-server.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flags, then environment, then YAML, each for what the one before leaves open."""
    config = _yaml("port: 1001\ncontrol_port: 1002\nworkers: 3\n")
    monkeypatch.setenv("HOTSWAP_PORT", "2001")
    monkeypatch.setenv("HOTSWAP_CONTROL_PORT", "2002")
    settings = Settings(config=config, port=3001, workers=None)
    assert (settings.port, settings.control_port, settings.workers) == (3001, 2002, 3)


def test_the_file_can_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOTSWAP_CONFIG is --config."""
    monkeypatch.setenv("HOTSWAP_CONFIG", str(_yaml("log_level: debug\n")))
    assert Settings().log_level == "debug"


def test_lists_are_comma_separated_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists need no JSON in the environment, and are lists in YAML."""
    monkeypatch.setenv("HOTSWAP_ALLOWED_HOSTS", "a.example, b.example")
    config = _yaml("allow_root: [one, /two]\n")
    settings = Settings(config=config)
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.allow_root == (Path.cwd() / "one", Path("/two"))


def test_paths_are_made_absolute() -> None:
    """Every process of the server sees the same folders, whatever its working directory."""
    settings = Settings(models=Path("models"))
    assert settings.models == Path.cwd() / "models"
    assert settings.state_dir == Path.cwd() / ".hotswap"


def test_limits_come_from_their_own_section_or_by_their_full_names() -> None:
    """`limits: {rows: …}` is limit_rows; what is not given keeps the core's default."""
    config = _yaml("limit_json_depth: 8\nlimits:\n  rows: 5\n")
    assert Settings(config=config).limits() == Limits(rows=5, json_depth=8)


def test_every_limit_is_a_setting_with_the_same_default() -> None:
    """No limit of the core is out of an operator's reach."""
    assert Settings().limits() == Limits()


def test_every_setting_is_described() -> None:
    """The documentation is made from the descriptions."""
    assert [n for n, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"port": "x"}, "--port: must be a valid integer"),
        ({"port": 70000}, "--port: must be less than or equal to 65535"),
        ({"workers": 0}, "--workers: must be greater than or equal to 1"),
        ({"store": "redis"}, "'redis' is not a store that exists here: use 'sqlite' or 'memory'"),
        ({"log_level": "loud"}, "--log-level: must be 'debug', 'info', 'warning' or 'error'"),
        ({"poll_seconds": "nan"}, "--poll-seconds: must be a finite number"),
        ({"poll_seconds": 0}, "--poll-seconds: must be greater than 0"),
        ({"trust_digests": "sha256:ab"}, "is not a digest"),
        ({"token": "two words"}, "--token: must be one or more printable ASCII characters"),
        ({"host": "http://x"}, "--host: must be a host name"),
        ({"port": 9, "control_port": 9}, "port and control_port are both 9"),
        ({"limit_default_timeout": 900}, "is above limit_max_timeout (300 s)"),
        ({"prometheus_url": "ftp://h"}, "--prometheus-url: must be an address such as http://"),
        ({"prometheus_url": "localhost:9090"}, "--prometheus-url: must be an address"),
        ({"prometheus_url": "http://h?a=b"}, "without a query"),
        ({"prometheus_url": "http://h:99999"}, "--prometheus-url: must be an address"),
        ({"prometheus_token": "x"}, "prometheus_token is given, and no prometheus_url"),
        ({"prometheus_url": "http://a:b@h", "prometheus_token": "x"}, "two ways to log in"),
        ({"prometheus_timeout_seconds": 0}, "--prometheus-timeout-seconds: must be greater than 0"),
        ({"prometheus_timeout_seconds": 61}, "must be less than or equal to 60"),
        ({"records": "maybe"}, "--records: must be 'on' or 'off'"),
        ({"records_share": 1.5}, "--records-share: must be less than or equal to 1"),
        ({"records_input_share": "nan"}, "--records-input-share: must be"),
        ({"records_days": 0}, "--records-days: must be greater than 0"),
        ({"records_mb": 0}, "--records-mb: must be greater than or equal to 1"),
        ({"records_redact": "a,b", "records_hash": "b"}, "both name 'b': choose one"),
        ({"records_inputs": "all,age"}, "records_inputs is 'all' or names of columns, not both"),
        ({"records_inputs": "age,none"}, "records_inputs is 'none' or names of columns, not both"),
        ({"records": "off", "records_days": 5}, "records_days is given, and records is off"),
        ({"records": "off", "records_redact": "a"}, "records_redact is given, and records is off"),
        (
            {"records_url": "nothing://x"},
            "--records-url: 'nothing' is no protocol that fsspec knows",
        ),
        ({"records_url": "hdfs3://x"}, "--records-url: 'hdfs3' is no protocol"),
        ({"records_url": "here/below"}, "--records-url: must be an address such as s3://"),
        ({"records_url": "s3://"}, "--records-url: says no place behind s3://"),
        ({"wrokers": 2}, "'wrokers' is not a setting; the nearest is 'workers'"),
        ({"config": "absent.yaml"}, "absent.yaml cannot be read: No such file"),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence(flags: dict[str, Any], says: str) -> None:
    """The sentence names the flag and what it must be."""
    with pytest.raises(ConfigError) as caught:
        Settings(**flags)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot: 1\n", "'prot' in hotswap-server.yaml is not a setting; the nearest is 'port'"),
        ("limits: {row: 1}\n", "'row' in the section 'limits' of hotswap-server.yaml"),
        ("limits: 3\n", "'limits' in hotswap-server.yaml must hold limits"),
        ("limits: {rows: 1}\nlimit_rows: 2\n", "gives limit_rows twice"),
        ("- a\n", "must hold settings"),
        ("port: [\n", "is not valid YAML"),
        ("port: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        ("workers: many\n", "'workers' in the configuration file: must be a valid integer"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(text: str, says: str) -> None:
    """Unknown keys are never ignored, and YAML runs nothing."""
    with pytest.raises(ConfigError) as caught:
        Settings(config=_yaml(text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_a_file_of_defaults() -> None:
    """An empty configuration file changes nothing."""
    assert Settings(config=_yaml("")).port == 8080


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the variable, and knows the one that Kubernetes sets."""
    monkeypatch.setenv("HOTSWAP_PORT", "tcp://10.0.0.1:8080")
    with pytest.raises(ConfigError, match=r"the variable HOTSWAP_PORT: .*enableServiceLinks"):
        Settings()


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is nearly a setting's is a mistake; an unlike one is not ours."""
    monkeypatch.setenv("HOTSWAP_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("HOTSWAP_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HOTSWAP_BLUE", "1")
    Settings()
    monkeypatch.setenv("HOTSWAP_WORKRES", "2")
    with pytest.raises(ConfigError, match="did you mean HOTSWAP_WORKERS"):
        Settings()


def test_an_exposed_address_needs_a_token_or_the_operators_word() -> None:
    """Beyond loopback: refused, unless there is a token or --insecure."""
    for flags in ({"host": "0.0.0.0"}, {"control_host": "::"}, {"host": "box.example"}):
        with pytest.raises(ConfigError, match="there is no token: set HOTSWAP_TOKEN"):
            Settings(**flags)
        assert Settings(**flags, token="t0k3n").secret() == "t0k3n"
        assert Settings(**flags, insecure=True).secret() is None


def test_the_token_is_never_shown() -> None:
    """Neither repr nor str nor an error shows a secret."""
    settings = Settings(token="t0k3n")
    assert "t0k3n" not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(ConfigError) as caught:
        Settings(token="t0k3n with spaces")
    assert "t0k3n" not in str(caught.value)


def test_what_prometheus_is_asked_with_is_never_shown() -> None:
    """Neither its token nor a password in its address; only who asks it is given them."""
    settings = Settings(prometheus_url="http://h:9090/p", prometheus_token="t0k3n")
    assert "t0k3n" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.prometheus_secret() == "t0k3n"
    assert "t0k3n" not in repr(Settings(prometheus_url="http://me:t0k3n@h"))
    for url in ("ftp://me:t0k3n@h", "http://me:t0k3n@h?x=1", "http://me:t0k3n@[h"):
        with pytest.raises(ConfigError) as caught:
            Settings(prometheus_url=url)
        assert "t0k3n" not in str(caught.value)


def test_where_records_go_is_never_shown() -> None:
    """An address may hold who may write there; nor does a refusal tell."""
    settings = Settings(records_url="memory://me:hunter2@host/records")
    assert "hunter2" not in repr(settings)
    with pytest.raises(ConfigError) as caught:
        Settings(records_url="nothing://me:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_what_is_recorded_is_told_by_names() -> None:
    """Separated by commas, or as a list."""
    settings = Settings(records_inputs="age, zip", records_redact=["name"], records_hash="ssn")
    assert settings.records_inputs == ("age", "zip")
    assert (settings.records_redact, settings.records_hash) == (("name",), ("ssn",))


def test_settings_reach_a_child_process_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """from_json(to_json()) is the same settings, whatever the child's environment says."""
    settings = Settings(
        token="t0k3n", models=Path("m"), limit_rows=7, allowed_hosts=["h"],
        prometheus_url="https://h/p", prometheus_token="s3cret", prometheus_timeout_seconds=2,
    )  # fmt: skip
    monkeypatch.setenv("HOTSWAP_PORT", "5")
    assert Settings.from_json(settings.to_json()) == settings


def test_the_memory_budget_is_a_share_of_what_there_is(tmp_path: Path) -> None:
    """80 % of the machine's or the container's memory, or what is said."""
    limit = tmp_path / "memory.max"
    limit.write_text("1000\n")
    assert machine_memory(limit) == 1000
    limit.write_text("max\n")
    assert machine_memory(limit) > 1000
    assert Settings(memory_budget_mb=3).memory_budget() == 3 * 1024**2
    assert Settings().memory_budget() == machine_memory() * 4 // 5


def test_workers_default_to_a_few() -> None:
    """Between one and four front ends, however many processors there are."""
    assert 1 <= default_workers() <= 4
    assert Settings().workers == default_workers()


def test_loopback_is_told_apart() -> None:
    """Only addresses that no other machine reaches are loopback."""
    assert all(is_loopback(h) for h in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not any(is_loopback(h) for h in ("0.0.0.0", "::", "10.0.0.1", "example.org"))


def test_a_server_has_its_own_defaults_of_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """By environment as by file; a body that says otherwise wins."""
    monkeypatch.setenv("HOTSWAP_ROLLOUT_ALPHA", "0.01")
    monkeypatch.setenv("HOTSWAP_ROLLOUT_BAKE_SECONDS", "5")
    monkeypatch.setenv("HOTSWAP_ROLLOUT_ON_INSUFFICIENT", "rollback")
    defaults = Settings().rollout_defaults()
    body = {"model": "m", "version": "v2", "strategy": "canary"}
    spec = parse(body, defaults)
    assert (spec.alpha, spec.bake_seconds, spec.on_insufficient) == (0.01, 5.0, "rollback")
    assert parse({**body, "bake_minutes": 2, "alpha": 0.1}, defaults).bake_seconds == 120.0
    assert parse(body).alpha == 0.05


@pytest.mark.parametrize("value", ["0", "0.9", "nan", "much"])
def test_an_alpha_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """When the server starts, not when the first rollout does."""
    monkeypatch.setenv("HOTSWAP_ROLLOUT_ALPHA", value)
    with pytest.raises(ConfigError, match=r"(?i)alpha"):
        Settings()
