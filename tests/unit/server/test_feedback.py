"""Labels and rewards, and whatever else is sent in their place."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hotswap.ipc.records import Label
from hotswap.server import feedback
from tests.unit.server.asgi_client import Client, client_of


class Taking:
    """What stands in the ring's place; ``room`` for so many groups."""

    def __init__(self, room: int = 1_000) -> None:
        self.room = room
        self.labels: list[Label] = []

    def __call__(self, labels: list[Label]) -> bool:
        if not self.room:
            return False
        self.room -= 1
        msgspec.msgpack.encode(labels)
        self.labels += labels
        return True


@pytest.fixture
def taking() -> Taking:
    return Taking()


@pytest.fixture
def client(taking: Taking) -> Client:
    return client_of(labels=taking)[0]


@pytest.mark.parametrize(
    ("body", "labels"),
    [
        ({"request_id": "a", "label": 1}, [Label("a", 0, 1.0)]),
        ({"request_id": "a", "label": True}, [Label("a", 0, 1.0)]),
        ({"request_id": "a", "label": "fraud"}, [Label("a", 0, text="fraud")]),
        ({"request_id": "a", "label": "Bé\u0000 \U0001f600"}, [Label("a", 0, text="Bé\0 \U0001f600")]),
        ({"request_id": "a", "label": ""}, [Label("a", 0, text="")]),
        ({"request_id": "a", "reward": -0.5}, [Label("a", 0, reward=-0.5)]),
        ({"request_id": "a", "label": 0, "row": 2147483647}, [Label("a", 2147483647, 0.0)]),
        ({"request_id": "a", "label": [1, None, "x"]}, [Label("a", 0, 1.0), Label("a", 2, text="x")]),
        ([{"request_id": "a", "label": 1}, {"request_id": "b", "reward": [0, 1]}],
         [Label("a", 0, 1.0), Label("b", 0, reward=0.0), Label("b", 1, reward=1.0)]),
        ([], []),
    ],
)  # fmt: skip
async def test_labels_are_taken(
    client: Client, taking: Taking, body: Any, labels: list[Label]
) -> None:
    """One object or a list; a list has one a row, and null where nothing is known. 202."""
    reply = await client.post("/feedback", body)
    assert (reply.status, reply.json()) == (202, {"accepted": len(labels)})
    assert taking.labels == labels
    assert reply.headers["x-request-id"]


async def test_repeats_are_harmless(client: Client, taking: Taking) -> None:
    """They are taken again, and the last of each row counts."""
    for _ in range(2):
        assert (await client.post("/feedback", {"request_id": "a", "label": 1})).status == 202
    assert taking.labels == [Label("a", 0, 1.0)] * 2


BAD = {
    "no object": (b"1", "object"),
    "null": (b"null", "object"),
    "a text": (b'"a"', "object"),
    "a list of numbers": (b"[1]", r"entry 0"),
    "nothing": (b"", "JSON"),
    "no JSON": (b"{", "JSON"),
    "a NaN": (b'{"request_id":"a","label":NaN}', "JSON"),
    "infinity": (b'{"request_id":"a","label":-Infinity}', "JSON"),
    "an overflow": (b'{"request_id":"a","label":1e999}', "finite|JSON"),
    "a huge number": (b'{"request_id":"a","label":1' + b"0" * 400 + b"}", "finite|JSON"),
    "a huge reward": (b'{"request_id":"a","reward":1e301}', "finite"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "deeper"),
    "a deep label": (b'{"request_id":"a","label":' + b"[" * 200 + b"]" * 200 + b"}", "deeper"),
    "half a character": (rb'{"request_id":"a","label":"\ud800"}', "surrogate|JSON"),
    "half an id": (rb'{"request_id":"\udfff","label":1}', "request_id|JSON"),
    "no UTF-8": (b'{"request_id":"a","label":"\xff"}', "JSON|UTF-8"),
    "no id": (b'{"label":1}', "request_id"),
    "a number for an id": (b'{"request_id":1,"label":1}', "request_id"),
    "null for an id": (b'{"request_id":null,"label":1}', "request_id"),
    "an empty id": (b'{"request_id":"","label":1}', "request_id"),
    "a long id": (b'{"request_id":"' + b"x" * 129 + b'","label":1}', "request_id"),
    "a line end in an id": (rb'{"request_id":"a\r\nb","label":1}', "request_id"),
    "an id that is not ASCII": ('{"request_id":"é","label":1}'.encode(), "request_id"),
    "neither": (b'{"request_id":"a"}', "either"),
    "both": (b'{"request_id":"a","label":1,"reward":1}', "either"),
    "null for a label": (b'{"request_id":"a","label":null}', "label"),
    "null for a reward": (b'{"request_id":"a","reward":null}', "reward"),
    "an object for a label": (b'{"request_id":"a","label":{}}', "label"),
    "a list in a list": (b'{"request_id":"a","label":[[1]]}', "label"),
    "an empty list": (b'{"request_id":"a","label":[]}', "empty"),
    "a text for a reward": (b'{"request_id":"a","reward":"1"}', "reward"),
    "a list with a row": (b'{"request_id":"a","label":[1],"row":0}', "row"),
    "a row below 0": (b'{"request_id":"a","label":1,"row":-1}', "row"),
    "a large row": (b'{"request_id":"a","label":1,"row":2147483648}', "row"),
    "half a row": (b'{"request_id":"a","label":1,"row":0.5}', "row"),
    "true for a row": (b'{"request_id":"a","label":1,"row":true}', "row"),
    "null for a row": (b'{"request_id":"a","label":1,"row":null}', "row"),
    "an unknown key": (b'{"request_id":"a","label":1,"model":"m"}', "unknown key 'model'"),
    "a long text": (b'{"request_id":"a","label":"' + b"x" * 1025 + b'"}', "longer"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
async def test_what_is_no_label_is_refused(client: Client, taking: Taking, what: str) -> None:
    """400 and one sentence that names the place; nothing is taken of such a request."""
    body, said = BAD[what]
    reply = await client.post("/feedback", body)
    assert reply.status == 400, reply.body
    assert msgspec.json.decode(reply.body)["error"]
    assert any(each.lower() in reply.error.lower() for each in said.split("|")), reply.error
    assert taking.labels == []
    good = b'[{"request_id":"good","label":1},' + body + b"]"
    assert (await client.post("/feedback", good)).status == 400
    assert taking.labels == []


async def test_an_error_names_its_entry(client: Client) -> None:
    """As it was counted: from 0."""
    body = [{"request_id": "a", "label": 1}, {"request_id": "a", "label": {}}]
    assert "(entry 1)" in (await client.post("/feedback", body)).error


@pytest.mark.parametrize(
    "content_type",
    ["application/x-pickle", "application/octet-stream", "application/python-pickle", "text/csv",
     "application/json; charset=utf-16", "multipart/form-data; boundary=x", "nonsense"],
)  # fmt: skip
async def test_only_json_is_read(client: Client, taking: Taking, content_type: str) -> None:
    """Whatever a header says: nothing else decodes a body."""
    import pickle

    body = pickle.dumps({"request_id": "a", "label": 1})
    reply = await client.post("/feedback", body, {"content-type": content_type})
    assert reply.status == 415
    assert taking.labels == []


async def test_a_body_without_a_type_is_json_or_nothing(client: Client) -> None:
    """A pickle is no JSON."""
    import pickle

    assert (await client.post("/feedback", pickle.dumps({"request_id": "a"}))).status == 400


@pytest.mark.parametrize("one", [True, False])
async def test_so_many_labels_and_no_more(client: Client, taking: Taking, one: bool) -> None:
    """In one object or in several: 413, and nothing is taken."""

    def body(many: int) -> Any:
        if one:
            return {"request_id": "a", "label": [1] * many}
        return [{"request_id": f"r{n}", "label": 1} for n in range(many)]

    reply = await client.post("/feedback", body(feedback.MOST + 1))
    assert reply.status == 413
    assert "several requests" in reply.error
    assert taking.labels == []
    assert (await client.post("/feedback", body(feedback.MOST))).status == 202
    assert len(taking.labels) == feedback.MOST


async def test_no_room_is_said(client: Client, taking: Taking) -> None:
    """503 and when to come again; what was put in before is harmless when it is sent again."""
    taking.room = 1
    body = [{"request_id": f"r{n}", "label": 1} for n in range(feedback.GROUP + 1)]
    reply = await client.post("/feedback", body)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert len(taking.labels) == feedback.GROUP
    taking.room = 5
    assert (await client.post("/feedback", body)).status == 202


async def test_without_records_there_is_nothing_to_join(taking: Taking) -> None:
    """404, and what to do."""
    client, _ = client_of()
    reply = await client.post("/feedback", {"request_id": "a", "label": 1})
    assert reply.status == 404
    assert "--records on" in reply.error


async def test_the_document_tells_of_it(client: Client) -> None:
    """What is sent, and that it is accepted, not done."""
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/feedback"]["post"]
    assert "202" in operation["responses"]
    assert "200" not in operation["responses"]
    schema = document["components"]["schemas"]["Feedback"]
    assert sorted(schema["properties"]) == ["label", "request_id", "reward", "row"]


async def test_it_needs_the_token(taking: Taking) -> None:
    """As predictions do."""
    client, _ = client_of(labels=taking, token="secret-token-of-the-operator")
    body = {"request_id": "a", "label": 1}
    assert (await client.post("/feedback", body)).status == 401
    headers = {"authorization": "Bearer secret-token-of-the-operator"}
    assert (await client.post("/feedback", body, headers)).status == 202
