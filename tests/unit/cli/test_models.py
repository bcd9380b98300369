"""``hotswap models``, ``switch`` and ``rollback`` against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from typer.testing import Result

from hotswap.cli import output
from hotswap.server.admin import create_app
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run, serving


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def _failed(result: Result) -> str:
    """The one line on stderr of a command that failed."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def _added(run: Run, *versions: str) -> None:
    for version in versions:
        assert run("models", "add", "fraud", f"/m/{version}", "--version", version).exit_code == 0


def test_a_version_is_added_with_what_is_said_of_it(
    run: Run, control: FakeControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is sent as an absolute one: the server works elsewhere."""
    monkeypatch.chdir(tmp_path)
    options = ["--version", "v7", "--runtime", "onnx", "--metadata", '{"auc": 0.9}']
    more = ["--changelog", "better", "--in-place", "--compile", "onnx"]
    answer = _json(run("models", "add", "fraud", "here", *options, *more, "--json"))
    assert (answer["version"], answer["changelog"]) == ("v7", "better")
    assert answer["metadata"] == {"auc": 0.9}
    call = control.calls[0]
    assert call[:7] == ("register", "fraud", str(tmp_path / "here"), "v7", "onnx", True, "onnx")


@pytest.mark.parametrize("uri", ["s3://models/fraud/3", "models:/fraud@champion", "file:///m/3"])
def test_a_uri_is_sent_as_it_is(run: Run, control: FakeControl, uri: str) -> None:
    """The server fetches it: it is no path from here."""
    run("models", "add", "fraud", uri)
    assert control.calls[0][:3] == ("register", "fraud", uri.removeprefix("file://"))


def test_adding_prints_the_version_and_its_digest(run: Run) -> None:
    """For people: what it became."""
    assert "registered fraud/v1  sha256:" in run("models", "add", "fraud", "/m/x").stdout


@pytest.mark.parametrize("metadata", ["{", "[1]"])
def test_metadata_must_be_a_json_object(run: Run, control: FakeControl, metadata: str) -> None:
    """Nothing is registered with metadata that cannot be kept."""
    assert "--metadata" in _failed(run("models", "add", "m", "/x", "--metadata", metadata))
    assert control.calls == []


def test_the_list_shows_what_is_active_and_what_is_wrong(run: Run, control: FakeControl) -> None:
    """One line a version, with the reason why it cannot serve."""
    _added(run, "v1")
    run("models", "add", "fraud", "/m/broken", "--version", "v2")
    run("switch", "fraud", "v1")
    assert "not a model" in _failed(run("models", "load", "fraud", "v2"))
    control.table["fraud"] = msgspec.structs.replace(
        control.table["fraud"], warnings=("v2 is odd",)
    )
    shown = run("models", "list").stdout
    (first,) = [line for line in shown.splitlines() if "v1" in line]
    (second,) = [line for line in shown.splitlines() if "UNAVAILABLE" in line]
    for text in ("READY", "stable", "100 %", "8.0 MiB", "0.25 s"):
        assert text in first
    assert "ValueError: not a model" in second
    assert "fraud: v2 is odd" in shown


def test_long_reasons_are_cut_and_not_repeated(run: Run, control: FakeControl) -> None:
    """The table stays readable; what it leaves out is in `show` and in JSON."""
    _added(run, "v1", "v2", "v3", "v4", "v5")
    long = "the library " + "that it needs was not found in any of the places " * 5 + "; install it"
    reasons = [long, long, "", "too odd; send another", long]
    (model,) = control.table.values()
    versions = tuple(
        msgspec.structs.replace(version, reason=reason)
        for version, reason in zip(model.versions, reasons, strict=True)
    )
    control.table["fraud"] = msgspec.structs.replace(model, versions=versions)
    shown = run("models", "list").stdout
    lines = [line for line in shown.splitlines() if "the library that it needs" in line]
    assert len(lines) == 1
    assert "v5" in lines[0]
    assert lines[0].endswith(" …")
    note = lines[0][lines[0].index("the library") :]
    assert 50 < len(note) <= 70
    assert long.startswith(note.removesuffix(" …") + " ")
    assert shown.count("the same") == 2
    assert "too odd …" in shown
    assert "hotswap models show fraud" in shown
    assert long in run("models", "show", "fraud").stdout
    listed = _json(run("models", "list", "--json"))["models"][0]["versions"]
    assert [version["reason"] for version in listed] == reasons


def test_notes_come_below_a_narrow_table(
    run: Run, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns there is no room beside the numbers: each note has a line of its own."""
    _added(run, "v1", "v2")
    (model,) = control.table.values()
    versions = tuple(msgspec.structs.replace(each, reason="it is odd") for each in model.versions)
    control.table["fraud"] = msgspec.structs.replace(model, versions=versions)
    monkeypatch.setattr(output, "_stdout", lambda: Console(width=80))
    lines = run("models", "list").stdout.splitlines()
    assert "fraud/v2: it is odd" in lines
    assert "fraud/v1: the same" in lines
    assert max(map(len, lines)) <= 80
    assert not any("Notes" in line for line in lines)


def test_short_reasons_need_no_pointer(run: Run) -> None:
    """What is shown in full is not pointed to."""
    _added(run, "v1")
    assert "models show" not in run("models", "list").stdout


def test_an_empty_list_says_how_to_fill_it(run: Run) -> None:
    """No model: the command that adds one."""
    assert "hotswap models add" in run("models", "list").stdout
    assert _json(run("models", "list", "--json")) == {"models": []}


def test_a_model_is_shown_in_full(run: Run, control: FakeControl) -> None:
    """Its versions with digest, origin and changelog."""
    run("models", "add", "fraud", "/m/x", "--changelog", "first one", "--metadata", '{"a": 1}')
    shown = run("models", "show", "fraud").stdout
    digest = control.table["fraud"].versions[0].digest
    for text in (digest, "/m/x", "first one", '{"a": 1}', "2023-11-14"):
        assert text in shown
    assert _json(run("models", "show", "fraud", "--json"))["name"] == "fraud"


def test_what_a_model_says_cannot_steer_the_terminal(run: Run, control: FakeControl) -> None:
    """Control characters are replaced, and markup is text."""
    run("models", "add", "fraud", "/m/x", "--changelog", "a\x1b[31mb [bold]c[/bold]")
    shown = run("models", "show", "fraud").stdout
    assert "\x1b" not in shown
    assert "a�[31mb [bold]c[/bold]" in shown


def test_a_switch_and_a_rollback_tell_from_what_to_what(run: Run, control: FakeControl) -> None:
    """Versions, revision and times."""
    _added(run, "v1", "v2")
    assert "fraud: nothing → v1" in run("switch", "fraud", "v1").stdout
    answer = _json(run("switch", "fraud", "v2", "--force", "--idempotency-key", "k", "--json"))
    assert (answer["from"], answer["to"], answer["revision"]) == ("v1", "v2", 2)
    assert control.calls[-1] == ("switch", "fraud", "v2", True, "k")
    shown = run("rollback", "fraud").stdout
    assert "fraud: v2 → v1" in shown
    assert "flipped in 0.25 ms" in shown
    assert _json(run("rollback", "fraud", "--json"))["to"] == "v2"


def test_loading_and_unloading(run: Run) -> None:
    """Each says what it did."""
    _added(run, "v1")
    assert run("models", "load", "fraud", "v1").stdout == "loaded fraud/v1\n"
    assert _json(run("models", "unload", "fraud", "v1", "--json"))["kind"] == "unload"


def test_removing_a_version(run: Run, control: FakeControl) -> None:
    """A version at once; what has traffic not at all."""
    _added(run, "v1", "v2")
    run("switch", "fraud", "v1")
    assert run("models", "remove", "fraud", "v2").stdout == "removed fraud/v2\n"
    assert "has traffic" in _failed(run("models", "remove", "fraud", "v1"))


def test_removing_a_model_must_be_meant(run: Run, control: FakeControl) -> None:
    """Without a version and without --yes, nothing is removed where nobody can be asked."""
    _added(run, "v1")
    assert "add --yes" in _failed(run("models", "remove", "fraud"))
    assert "fraud" in control.table
    assert _json(run("models", "remove", "fraud", "--yes", "--json"))["model"] == "fraud"
    assert control.table == {}


def test_the_servers_own_sentence_is_the_error(run: Run) -> None:
    """No status codes, no tracebacks."""
    assert _failed(run("switch", "fraud", "v1")) == "error: there is no model 'fraud'"
    assert "name '../x' is not valid" in _failed(run("models", "show", "../x"))


def test_an_absent_server_is_named(bare: Run) -> None:
    """The URL, and what starts a server."""
    line = _failed(bare("models", "list", "--url", "http://127.0.0.1:9"))
    assert "no server answers at http://127.0.0.1:9" in line
    assert "hotswap serve" in line


@pytest.mark.parametrize("address", ["", "http://", "ftp://x", "http://x:y", "http://[::1"])
def test_a_bad_url_is_named(bare: Run, address: str) -> None:
    """What is no URL is not tried."""
    assert "is not a URL" in _failed(bare("models", "list", "--url", address))


def test_another_server_is_recognised(bare: Run) -> None:
    """Something else than a control API answers there."""

    async def other(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>"})

    with serving(other) as address:
        assert "not a hotswap server" in _failed(bare("models", "list", "--url", address))


def test_the_token_comes_from_the_environment(bare: Run) -> None:
    """HOTSWAP_TOKEN opens the door; without it the error says so."""
    with serving(create_app(FakeControl(), token="t0k3n")) as address:
        command = ("models", "list", "--json", "--url", address)
        assert "HOTSWAP_TOKEN" in _failed(bare(*command))
        assert _json(bare(*command, env={"HOTSWAP_TOKEN": "t0k3n"})) == {"models": []}
        assert "ASCII" in _failed(bare(*command, "--token", "é"))
