"""The data plane's OpenAPI 3.1 document, made from the router's own table of routes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Any, Final

from hotswap.core.datatypes import NUMPY_OF
from hotswap.server.routes import ROUTES, Route

Schema = dict[str, Any]


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "number"}
_WHOLE: Final[Schema] = {"type": "integer"}
_FLAG: Final[Schema] = {"type": "boolean"}
_ANY: Final[Schema] = {}
_DATATYPE: Final[Schema] = {"type": "string", "enum": list(NUMPY_OF)}
_SHAPE: Final[Schema] = _list(_WHOLE)
_PARAMETERS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_VALUES: Final[Schema] = {"type": "array", "description": "nested, or flattened in row-major order"}

SCHEMAS: Final[dict[str, Schema]] = {
    "Error": _object(["error"], error=_TEXT),
    "Server": _object(
        ["name", "version", "extensions"], name=_TEXT, version=_TEXT, extensions=_list(_TEXT)
    ),
    "Live": _object(["live"], live=_FLAG),
    "Ready": _object(["ready"], ready=_FLAG),
    "ModelReady": _object(["name", "ready"], name=_TEXT, ready=_FLAG, error=_TEXT),
    "Tensor": _object(["name", "datatype", "shape"], name=_TEXT, datatype=_DATATYPE, shape=_SHAPE),
    "Model": _object(
        ["name", "versions", "platform", "inputs", "outputs"],
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_ref("Tensor")),
        outputs=_list(_ref("Tensor")),
    ),
    "Stats": _object(["model_stats"], model_stats=_list({"type": "object"})),
    "Config": _object(["name", "platform", "max_batch_size", "input", "output"], name=_TEXT),
    "InferInput": _object(
        ["name", "shape", "datatype"],
        name=_TEXT,
        shape=_SHAPE,
        datatype=_DATATYPE,
        parameters=_PARAMETERS,
        data=_VALUES,
    ),
    "InferRequest": _object(
        ["inputs"],
        id=_TEXT,
        parameters=_PARAMETERS,
        inputs=_list(_ref("InferInput")),
        outputs=_list(_object(["name"], name=_TEXT, parameters=_PARAMETERS)),
    ),
    "InferResponse": _object(
        ["model_name", "model_version", "outputs"],
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        outputs=_list(_ref("InferInput")),
    ),
    "IndexRequest": _object([], ready=_FLAG),
    "Index": _list(
        _object(["name", "state", "reason"], name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)
    ),
    "Predict": _object(
        ["features"],
        features={
            "description": "one row or several, as values in order or as objects by name",
            "type": ["array", "object", "string", "number", "boolean"],
        },
        model=_TEXT,
        version=_TEXT,
        request_id=_TEXT,
    ),
    "Prediction": _object(
        ["model", "version", "request_id"],
        prediction=_ANY,
        predictions={"type": "array"},
        probabilities={"type": "array"},
        model=_TEXT,
        version=_TEXT,
        request_id=_TEXT,
    ),
    "Invocations": {
        "description": "exactly one of the four",
        "type": "object",
        "properties": {
            "dataframe_split": _object(["data"], columns={"type": "array"}, data=_list(_VALUES)),
            "dataframe_records": _list({"type": "object"}),
            "instances": {"type": "array"},
            "inputs": {"type": ["array", "object"]},
            "params": {"type": "object", "maxProperties": 0},
        },
    },
    "Predictions": _object(["predictions"], predictions={"type": "array"}),
    "Feedback": {
        "description": "one, or a list of these; exactly one of label and reward",
        **_object(
            ["request_id"],
            request_id=_TEXT,
            row=_WHOLE,
            label={"description": "the truth; a list has one a row"},
            reward={"description": "a number; a list has one a row"},
        ),
    },
    "Accepted": _object(["accepted"], accepted=_WHOLE),
    "Document": {"type": "object"},
}

#: Request headers of the routes that predict, and what they do.
_HEADERS: Final = {
    "x-request-id": "the request's id: printable ASCII, 128 bytes at most",
    "x-hotswap-key": "requests with the same key are answered by the same version",
    "x-hotswap-model": "the model, where the path does not name it",
    "x-hotswap-timeout-ms": "the deadline in milliseconds from the request's arrival",
}

_ERRORS: Final = {
    "GET": ("400", "401", "404", "503"),
    "POST": ("400", "401", "404", "408", "413", "415", "429", "431", "500", "503", "504", "507"),
}


def server_version() -> str:
    """The installed package's version."""
    try:
        return package_version("hotswap")
    except PackageNotFoundError:
        return "0"


def document() -> Schema:
    """The whole document, as JSON values."""
    paths: dict[str, Schema] = {}
    for route in ROUTES:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hotswap data plane",
            "version": server_version(),
            "description": "Predictions: the Open Inference Protocol v2 and simpler formats.",
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> Schema:
    names = route.parameters()
    parameters: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names
    ]
    operation: Schema = {
        "operationId": "_".join([route.handler, *(n for n in names if n == "version")])
        + ("_all" if route.template == "/v2/models/stats" else ""),
        "summary": route.summary,
        "security": [] if route.open else [{}, {"token": []}],
        "responses": {
            "202" if route.handler == "feedback" else "200": {
                "description": "done",
                "content": {"application/json": {"schema": _ref(route.answer)}},
            }
        },
    }
    for status in _ERRORS[route.method]:
        operation["responses"][status] = {
            "description": "refused or failed",
            "content": {"application/json": {"schema": _ref("Error")}},
        }
    if route.body:
        content: Schema = {"application/json": {"schema": _ref(route.body)}}
        if route.handler == "infer":
            content["application/octet-stream"] = {}
        elif route.handler == "invocations":
            content["text/csv"] = {"schema": _TEXT}
        operation["requestBody"] = {"required": route.handler != "index", "content": content}
    if route.body and route.handler not in ("index", "feedback"):
        parameters += [
            {"name": name, "in": "header", "required": False, "schema": _TEXT, "description": text}
            for name, text in _HEADERS.items()
        ]
    if route.handler == "infer":
        parameters.append(
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "required": False,
                "schema": _WHOLE,
                "description": "bytes of JSON before the raw tensors; 0: raw bytes alone",
            }
        )
    if parameters:
        operation["parameters"] = parameters
    return operation
