"""The documentation says what the code does: settings, commands, routes, links."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from fastapi.routing import APIRoute

from hotswap.config import Settings
from hotswap.core.spec import VersionSettings
from hotswap.server import admin_models, admin_simple, admin_system
from hotswap.server.routes import ROUTES

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
    POST /api/v1/models/{name}/predictions
    POST /invocations
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
    GET /api/v1/operations
    GET /api/v1/operations/{id}
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
    routers = (admin_system.router, admin_models.router, admin_simple.router)
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
