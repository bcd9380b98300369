"""The documentation says what the code does: settings, commands, routes, links."""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute
from typer.testing import CliRunner

from hotswap.cli import rollout, rollout_start
from hotswap.cli.client import CommandFailed
from hotswap.config import Settings
from hotswap.core.blueprint import GATE_KEYS, MODEL_KEYS, REPLAY_KEYS, VERSION_KEYS
from hotswap.core.blueprint import parse as blueprint
from hotswap.core.commands import COMMANDS
from hotswap.core.metric_names import KNOWN
from hotswap.core.plan import compile_steps
from hotswap.core.spec import VersionSettings
from hotswap.core.strategy import (
    DEFAULTS,
    ON_INSUFFICIENT,
    ON_RUNNING,
    STRATEGIES,
    RolloutSpec,
    parse,
)
from hotswap.server import (
    admin_drift,
    admin_events,
    admin_models,
    admin_quality,
    admin_registry,
    admin_replay,
    admin_rollouts,
    admin_simple,
    admin_switching,
    admin_system,
)
from hotswap.server.routes import ROUTES
from hotswap.web.phrases import PHASES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]

# The public contract, kept here by hand: the code and the pages may offer more, never less.
DATA_ROUTES = """
    GET /v2
    GET /v2/health/live
    GET /v2/health/ready
    GET /v2/models/{m}
    GET /v2/models/{m}/versions/{v}
    GET /v2/models/{m}/ready
    GET /v2/models/{m}/versions/{v}/ready
    POST /v2/models/{m}/infer
    POST /v2/models/{m}/versions/{v}/infer
    GET /v2/models/{m}/stats
    GET /v2/models/{m}/versions/{v}/stats
    GET /v2/models/{m}/config
    GET /v2/models/{m}/versions/{v}/config
    POST /v2/repository/index
    POST /predict
    POST /api/v1/predictions
    POST /api/v1/ab/predictions
    POST /api/v1/models/{name}/predictions
    POST /invocations
    POST /feedback
    GET /ping
"""
CONTROL_ROUTES = """
    GET /healthz
    GET /readyz
    GET /metrics
    GET /docs
    GET /openapi.json
    GET /api/v1/info
    GET /
    GET /api/v1/models
    GET /api/v1/models/{m}
    POST /api/v1/models/{m}/versions
    DELETE /api/v1/models/{m}/versions/{v}
    DELETE /api/v1/models/{m}
    POST /api/v1/models/{m}/versions/{v}/load
    POST /api/v1/models/{m}/versions/{v}/unload
    POST /api/v1/models/{m}/switch
    POST /api/v1/models/{m}/rollback
    GET /api/v1/models/{m}/drift
    POST /api/v1/models/{m}/drift/reset
    GET /api/v1/models/{m}/report
    POST /api/v1/models/{m}/versions/{v}/replay
    GET /api/v1/operations
    GET /api/v1/operations/{id}
    POST /api/v1/rollouts
    GET /api/v1/rollouts
    GET /api/v1/rollouts/{id}
    GET /api/v1/rollouts/{id}/journal
    POST /api/v1/rollouts/{id}/promote
    POST /api/v1/rollouts/{id}/pause
    POST /api/v1/rollouts/{id}/resume
    POST /api/v1/rollouts/{id}/abort
    POST /api/v1/rollouts/{id}/retry
    POST /api/v1/rollouts/{id}/skip
    GET /api/v1/events
    GET /api/v1/registry
    POST /api/v1/registry/webhook
    POST /api/v1/model-switching/models
    GET /api/v1/model-switching/models
    GET /api/v1/model-switching/models/{id}
    DELETE /api/v1/model-switching/models/{id}/versions/{v}
    POST /api/v1/model-switching/switch
    GET /api/v1/model-switching/switch/operations
    GET /api/v1/model-switching/switch/operations/{id}
    POST /api/v1/model-switching/switch/operations/{id}/abort
    GET /api/v1/model-switching/health/models
    GET /api/v1/model-switching/health/models/{id}
    GET /api/v1/model-switching/alerts
    GET /api/v1/model-switching/config
    GET /api/v1/model-switching/stats
    POST /admin/set-active-version
    GET /admin/models
    POST /admin/clear-cache
    GET /admin/health
"""


def _routes(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _headings(page: str) -> set[str]:
    text = (DOCS / "reference" / page).read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("### ")]
    return {code for line in lines for code in re.findall(r"`([^`]+)`", line)}


def _named(method: str, path: str) -> str:
    for name, short in (("{model}", "{m}"), ("{version}", "{v}"), ("{operation}", "{id}")):
        path = path.replace(name, short)
    return f"{method} {path}"


def test_every_data_route_is_documented() -> None:
    """The data plane's page has a heading for each route that is served, and for no other."""
    served = {_named(route.method, route.template) for route in ROUTES}
    assert _headings("data-plane.md") == served
    assert set(_routes(DATA_ROUTES)) <= served


def test_every_control_route_is_documented() -> None:
    """The control plane's page has a heading for each route that is served, and for no other."""
    pages = (
        admin_system, admin_models, admin_simple, admin_rollouts, admin_events, admin_switching,
        admin_registry, admin_drift, admin_quality, admin_replay,
    )  # fmt: skip
    routers = [page.router for page in pages]
    served = {
        _named(method, route.path)
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and not route.path.startswith("/docs/assets")
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert _headings("control-plane.md") == served
    assert set(_routes(CONTROL_ROUTES)) <= served


def test_generated_pages_are_up_to_date(generator: ModuleType) -> None:
    """The settings and command-line pages are what docs/generate.py would write now."""
    assert generator.outdated() == []


def test_every_setting_is_documented_and_described() -> None:
    """Each setting has a heading on its page, and a description in the code."""
    page = (DOCS / "reference" / "settings.md").read_text("utf-8")
    for name, field in Settings.model_fields.items():
        assert f"\n## {name}\n" in page
        assert field.description, name


def test_every_key_of_version_yaml_is_documented() -> None:
    """The page on version.yaml defines each key, and no key that does not exist."""
    page = (DOCS / "reference" / "version-yaml.md").read_text("utf-8")
    terms = re.findall(r"^((?:`\w+`(?:, )?)+)\n: ", page, flags=re.MULTILINE)
    documented = {name for term in terms for name in re.findall(r"`(\w+)`", term)}
    assert documented == set(VersionSettings.__struct_fields__)


def test_every_key_of_hotswap_yaml_is_documented() -> None:
    """The page on hotswap.yaml defines each key, and no key that does not exist."""
    page = (DOCS / "reference" / "hotswap-yaml.md").read_text("utf-8")
    documented = re.findall(r"^`(\w+)`\n: ", page, flags=re.MULTILINE)
    assert documented == [*MODEL_KEYS, *VERSION_KEYS, *GATE_KEYS, *REPLAY_KEYS]


def test_files_of_plan_and_apply_in_examples_are_accepted() -> None:
    """Each hotswap.yaml, on a page or in examples/, is one that is read."""
    texts = [path.read_text("utf-8") for path in (ROOT / "examples").rglob("hotswap.yaml")]
    texts += [block for page in PAGES for block in _blocks(page, "yaml") if "models:\n" in block]
    assert len(texts) >= 3
    for text in texts:
        assert blueprint(yaml.safe_load(text)).models


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Each relative link or image names a file that exists."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text)
    missing = [
        target
        for target in targets
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
    ]
    assert missing == []


def test_flags_in_examples_exist() -> None:
    """No example command uses a flag that neither a setting nor a command knows."""
    cli = (DOCS / "reference" / "cli.md").read_text("utf-8")
    known = {"--" + name.replace("_", "-") for name in Settings.model_fields}
    known |= set(re.findall(r"--[a-z][a-z-]+", cli))
    unknown = {
        (page.name, flag)
        for page in [ROOT / "README.md", *PAGES]
        for line in re.findall(r"^.*?\$ .*?\bhotswap \w.*$", page.read_text("utf-8"), re.MULTILINE)
        for flag in re.findall(r"(?<=\s)--[a-z][a-z-]+", line.partition("hotswap ")[2])
        if flag not in known
    }
    assert unknown == set()


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)


def test_golden_values_of_the_statistics_come_out() -> None:
    """Each example on the page of formulas gives what stands there."""
    blocks = _blocks(DOCS / "explanation" / "statistics.md", "pycon")
    assert len(blocks) >= 7
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for number, block in enumerate(blocks):
        example = parser.get_doctest(block, {}, f"statistics.md, block {number}", None, None)
        assert example.examples
        assert runner.run(example).failed == 0


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT))
)
def test_rollouts_in_examples_are_accepted(page: Path) -> None:
    """Each body of a rollout and each ``hotswap rollout start`` is one that a server takes."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    bodies = [json.loads(block) for block in _blocks(page, "json") if '"strategy"' in block]
    commands = re.findall(r"^\$ (?:\w+=\S+ )*hotswap rollout (start .*)$", text, re.MULTILINE)
    bodies += [_asked(shlex.split(line, comments=True)) for line in commands]
    sent = r"api/v1/rollouts\S*['\"]?\s+--json '(\{.*?\})'"
    bodies += [json.loads(body) for body in re.findall(sent, text, flags=re.DOTALL)]
    for body in bodies:
        assert compile_steps(parse(body))


def test_every_key_of_a_rollout_is_documented() -> None:
    """The page on rollouts names each key, strategy, metric, command and phase that there is."""
    page = (DOCS / "reference" / "rollouts.md").read_text("utf-8")
    named = set(re.findall(r"`([^`\s]+)`", page))
    lengths = {"duration", "evaluation_period", "test_duration"}
    config = {key for keys in DEFAULTS.values() for key in keys}
    body = set(RolloutSpec.__struct_fields__)
    wanted = {*STRATEGIES, *COMMANDS, *KNOWN, *ON_RUNNING, *ON_INSUFFICIENT, *PHASES}
    wanted |= (config - lengths) | body | {"max_ratio", "max_increase", "max", "min_improvement"}
    assert wanted - named == set()
    assert {key for key in lengths if f"`{key}_" not in page} == set()


def _asked(words: list[str]) -> dict[str, Any]:
    """The body that the command line would send."""
    found: list[dict[str, Any]] = []

    def post(_url: str, _token: object, body: dict[str, Any], *_: object) -> Any:
        found.append(body)
        raise CommandFailed("not sent")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout_start, "_post", post)
        CliRunner().invoke(rollout.app, words)
    assert found, f"hotswap rollout {shlex.join(words)} is refused"
    return found[0]
