"""The OpenAPI document of the HTTP door: what may be asked, by whom, and what is answered.

It is written by hand where routes are concerned, and built from models where shapes are. What it
says of an answer is all that is ever answered there: every status, every content type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final, TypeAlias

import orjson
from falcon.asgi import Request, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from reconciler.api.script import Script
from reconciler.api.scriptrepository import Rollback, ScriptRepository
from reconciler.web import shapes
from reconciler.web.problems import CONTENT_TYPE as PROBLEM

Schema: TypeAlias = dict[str, Any]

API: Final = "/api/v1alpha1"
# The path of the first design; only the webhook ever stood there.
OLD_WEBHOOK: Final = "/api/v1alpha/webhook"

_JSON: Final = "application/json"
_HTML: Final = "text/html"
_BYTES: Final = "application/octet-stream"
_ARTIFACTS: Final = (
    f"text/javascript, application/wasm, application/zip, application/gzip, {_BYTES}"
)
_REFERENCE: Final = "#/components/schemas/{model}"
# Anything that is JSON.
_ANY: Final[Schema] = {}

# By the head of a request, its body, or the lack of room for it: of every path.
_GATE: Final = (400, 408, 413, 415, 421, 431, 503)
_GUARD: Final = (401, 403)

Shape: TypeAlias = type[BaseModel] | Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One method of one path. `errors` are those beyond what every path may answer."""

    does: str
    answers: Mapping[int, Shape | str]
    method: str = "get"
    query: tuple[str, ...] = ()
    body: Shape | None = None
    needs_body: bool = False
    errors: tuple[int, ...] = ()
    is_open: bool = False
    # Of the head alone.
    is_head_too: bool = False


def _list(model: type[BaseModel]) -> Schema:
    items = {"type": "array", "items": _reference(model)}
    return {"type": "object", "required": ["items"], "properties": {"items": items}}


def _reference(model: type[BaseModel]) -> Schema:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


_OBJECT: Final[Schema] = {"type": "object"}
_OBJECTS: Final[Schema] = {
    "type": "object",
    "required": ["items"],
    "properties": {"items": {"type": "array", "items": _OBJECT}},
}
_FORM: Final[Schema] = {
    "type": "object",
    "required": ["token"],
    "properties": {"token": {"type": "string"}},
}

_WEBHOOK: Final = (
    Asked(
        does="Queue a run of a Script that allows it; the query becomes the event.",
        query=("namespace", "name"),
        answers={202: shapes.Triggered},
        errors=(404, 429),
    ),
    Asked(
        method="post",
        does="Queue a run of a Script that allows it; the body becomes the event.",
        query=("namespace", "name"),
        body=_ANY,
        answers={202: shapes.Triggered},
        errors=(404, 429),
    ),
)


def _command(does: str, answer: type[BaseModel], body: type[BaseModel] | None = None) -> Asked:
    return Asked(
        method="post",
        does=does,
        body=body,
        answers={202: answer},
        # The cluster itself may be asked too often.
        errors=(404, 409, 429),
    )


_OF_SCRIPT: Final = f"{API}/scripts/{{namespace}}/{{name}}"
_OF_REPOSITORY: Final = f"{API}/repositories/{{namespace}}/{{name}}"
_OF_RUN: Final = f"{API}/runs/{{run_id}}"

PATHS: Final[Mapping[str, tuple[Asked, ...]]] = {
    "/": (
        Asked(
            does="The page.",
            query=("namespace",),
            answers={200: _HTML, 401: _HTML, 403: _HTML},
        ),
    ),
    "/signin": (
        Asked(does="A form that asks for a token.", answers={200: _HTML}, is_open=True),
        Asked(
            method="post",
            does="Take a token into a cookie, for what is only read.",
            body=_FORM,
            answers={303: "", 401: _HTML},
            errors=(403,),
            is_open=True,
        ),
    ),
    "/signout": (
        Asked(
            method="post",
            does="Forget the token.",
            answers={303: ""},
            errors=(403,),
            is_open=True,
        ),
    ),
    "/healthz": (
        Asked(
            does="Whether it lives.", answers={200: shapes.Alive}, is_open=True, is_head_too=True
        ),
    ),
    "/readyz": (
        Asked(
            does="Whether it can do its work.",
            answers={200: shapes.Ready, 503: shapes.Ready},
            is_open=True,
            is_head_too=True,
        ),
    ),
    "/metrics": (
        Asked(
            does="Numbers, for Prometheus.",
            answers={200: "text/plain, application/openmetrics-text"},
            is_open=True,
        ),
    ),
    "/registry/{namespace}/{repository}": (
        Asked(
            does="What a repository published.",
            answers={200: _list(shapes.PublishedArtifact)},
        ),
    ),
    "/registry/{namespace}/{repository}/{name}/{file}": (
        Asked(
            does="One artifact: `file` is its version and extension.",
            answers={
                200: _ARTIFACTS,
                304: "",
            },
            errors=(404,),
            is_head_too=True,
        ),
    ),
    f"{API}/openapi.json": (Asked(does="This document.", answers={200: _OBJECT}, is_open=True),),
    f"{API}/webhook": _WEBHOOK,
    OLD_WEBHOOK: _WEBHOOK,
    f"{API}/version": (
        Asked(does="What runs here.", answers={200: shapes.Versions}, is_open=True),
    ),
    f"{API}/scripts": (Asked(does="Scripts.", query=("namespace",), answers={200: _list(Script)}),),
    f"{_OF_SCRIPT}/trigger": (
        Asked(
            method="post",
            does="Queue a run, whatever the Script's policy; the body becomes the event.",
            body=_ANY,
            answers={202: shapes.Triggered},
            errors=(404, 429),
        ),
    ),
    f"{_OF_SCRIPT}/explain": (
        Asked(
            does="Why a Script did or did not run.",
            answers={200: shapes.Explanation},
            errors=(404,),
        ),
    ),
    f"{_OF_SCRIPT}/rollout": (
        Asked(
            method="post",
            does="Move a rollout on, end it, or return to a former version.",
            body=shapes.RolloutWish,
            needs_body=True,
            answers={202: shapes.RolloutAsked},
            errors=(404, 409, 429),
        ),
    ),
    f"{_OF_SCRIPT}/suspend": (_command("Pause a Script.", shapes.Suspended),),
    f"{_OF_SCRIPT}/resume": (_command("Let a Script go on.", shapes.Suspended),),
    f"{API}/repositories": (
        Asked(
            does="ScriptRepositories.", query=("namespace",), answers={200: _list(ScriptRepository)}
        ),
    ),
    f"{_OF_REPOSITORY}/push": (
        Asked(
            method="post",
            does="A forge's webhook for pushes; its signature is what lets it in.",
            body=_ANY,
            needs_body=True,
            answers={200: shapes.PushHeard, 202: shapes.PushHeard},
            errors=(403, 404, 409, 429),
            is_open=True,
        ),
    ),
    f"{_OF_REPOSITORY}/reconcile": (_command("Look at it now.", shapes.ReconcileRequested),),
    f"{_OF_REPOSITORY}/suspend": (_command("Pause a repository.", shapes.Suspended),),
    f"{_OF_REPOSITORY}/resume": (_command("Let a repository go on.", shapes.Suspended),),
    f"{_OF_REPOSITORY}/approve": (
        _command("Let the plan that waits go on.", shapes.Plan, shapes.Plan),
    ),
    f"{_OF_REPOSITORY}/rollback": (
        _command("Hold an earlier revision.", Rollback, shapes.RollbackWish),
    ),
    f"{_OF_REPOSITORY}/unroll": (_command("End a rollback.", shapes.Changed),),
    f"{API}/devices": (
        Asked(does="Devices.", query=("namespace",), answers={200: _list(shapes.Device)}),
    ),
    f"{API}/executors": (
        Asked(does="Connected executors.", answers={200: _list(shapes.Executor)}),
    ),
    f"{API}/runs": (
        Asked(
            does="Finished runs, newest first.",
            query=("namespace", "script", "limit"),
            answers={200: _list(shapes.Run)},
        ),
    ),
    _OF_RUN: (Asked(does="One finished run.", answers={200: shapes.Run}, errors=(404,)),),
    f"{_OF_RUN}/recording": (
        Asked(does="All that a replay needs.", answers={200: _OBJECT}, errors=(404,)),
    ),
    f"{_OF_RUN}/artifact": (
        Asked(does="The bytes that ran.", answers={200: _BYTES}, errors=(404,)),
    ),
    f"{API}/recordings": (
        Asked(
            does="Recordings, newest first.",
            query=("namespace", "script", "limit"),
            answers={200: _OBJECTS},
        ),
    ),
    f"{API}/debug": (Asked(does="The inside.", answers={200: _OBJECT}),),
}

# Whole numbers are the exception among parameters.
_LIMIT: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
_MODELS: Final[tuple[type[BaseModel], ...]] = (
    Script,
    ScriptRepository,
    Rollback,
    *(
        it
        for it in vars(shapes).values()
        if isinstance(it, type) and issubclass(it, BaseModel) and it.__module__ == shapes.__name__
    ),
)


class OpenApi:
    """Serves `document`."""

    async def on_get(self, _req: Request, resp: Response) -> None:
        resp.content_type = _JSON
        resp.data = _encoded()


@cache
def _encoded() -> bytes:
    return orjson.dumps(document())


def document() -> Schema:
    """The whole of it, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "scriptops",
            "description": "A controller's HTTP door. Every refusal is `Refused`.",
            "version": version("scriptops"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {path: dict(_item(path, asked) for asked in _methods(path)) for path in PATHS},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _methods(path: str) -> Iterator[Asked]:
    yield from PATHS[path]
    for asked in PATHS[path]:
        if asked.is_head_too:
            yield Asked(
                method="head",
                does=f"{asked.does} Without the body.",
                answers=asked.answers,
                errors=asked.errors,
                is_open=asked.is_open,
            )


def _item(path: str, asked: Asked) -> tuple[str, Schema]:
    refused = {*_GATE, *asked.errors, *(() if asked.is_open else _GUARD)} - set(asked.answers)
    operation: Schema = {
        "operationId": _identifier(path, asked.method),
        "summary": asked.does,
        "parameters": [*_in_path(path), *map(_in_query, asked.query)],
        "responses": {
            **{str(status): _response(status, answer) for status, answer in asked.answers.items()},
            **{str(status): _problem(status) for status in sorted(refused)},
        },
        "security": [] if asked.is_open else [{"token": []}, {}],
    }
    if asked.body is not None:
        form = "application/x-www-form-urlencoded"
        media = form if asked.body is _FORM else _JSON
        operation["requestBody"] = {
            "required": asked.needs_body,
            "content": {media: {"schema": _schema(asked.body)}},
        }
    return asked.method, operation


def _identifier(path: str, method: str) -> str:
    words = re.findall(r"[a-z0-9]+", path.removesuffix(".json"))
    return "-".join((method, *words))


def _in_path(path: str) -> Iterator[Schema]:
    for name in re.findall(r"\{(\w+)\}", path):
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(name: str) -> Schema:
    schema = _LIMIT if name == "limit" else {"type": "string"}
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _response(status: int, answer: Shape | str) -> Schema:
    response: Schema = {"description": HTTPStatus(status).phrase}
    if isinstance(answer, str):
        media: Schema = {one.strip(): {} for one in answer.split(",") if one}
    else:
        media = {_JSON: {"schema": _schema(answer)}}
    if status >= 400:
        # What stands in front of the path may be the one who refuses.
        media[PROBLEM] = {"schema": _reference(shapes.Refused)}
    return {**response, "content": media} if media else response


def _problem(status: int) -> Schema:
    content = {PROBLEM: {"schema": _reference(shapes.Refused)}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _schema(shape: Shape) -> Schema:
    return shape if isinstance(shape, dict) else _reference(shape)


def _schemas() -> Schema:
    modes: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in _MODELS]
    _, found = models_json_schema(modes, ref_template=_REFERENCE)
    schemas: Schema = found["$defs"]
    for model in (Script, ScriptRepository):
        # The cluster keeps more of an object than a manifest may say.
        properties = schemas[model.__name__]["properties"]
        properties["metadata"] = {"type": "object", "required": ["name", "namespace"]}
    schemas[Script.__name__]["properties"]["state"] = {"description": "What the Script remembers."}
    return schemas
