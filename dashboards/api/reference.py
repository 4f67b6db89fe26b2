"""The API's reference page: the OpenAPI description as plain HTML, without anything from another host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

router = APIRouter()

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886; text-transform: capitalize; }
details { margin: .5rem 0; }
summary { cursor: pointer; font-family: ui-monospace, monospace; }
summary b { display: inline-block; min-width: 3.5rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem 1rem; }
td, th { text-align: left; vertical-align: top; padding: .15rem .8rem .15rem 0; }
p { margin: .5rem 0 .5rem 1rem; white-space: pre-line; }
"""


@router.get("/api/docs")
async def reference(request: Request) -> Response:
    """Show every address, its parameters and what it answers."""
    spec: Mapping[str, Any] = request.app.openapi()
    return HTMLResponse(_page(spec))


@router.get("/api/docs.css")
async def style() -> Response:
    """Give the reference page's style sheet, which the content policy wants in a file of its own."""
    return Response(_STYLE, media_type="text/css", headers={"cache-control": "no-cache"})


def _page(spec: Mapping[str, Any]) -> str:
    tagged: dict[str, list[str]] = {}
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            tagged.setdefault(operation["tags"][0], []).append(_operation(spec, method, path, operation))
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(parts)}" for tag, parts in tagged.items())
    info = spec["info"]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Qala: API</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/api/docs.css">'
        f"<h1>Qala {escape(info['version'])}: API</h1><p>{escape(info['description'])} "
        'The same as <a href="/api/v1/openapi.json">OpenAPI</a>.</p>'
        f"{sections}</html>"
    )


def _operation(spec: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> str:
    rows = [_parameter(parameter) for parameter in operation.get("parameters", ())]
    rows += _body(spec, operation)
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    return (
        f"<details><summary><b>{method.upper()}</b> {escape(path)}</summary>"
        f"<p>{escape(operation.get('description', ''))}</p>{table}{_answer(spec, operation)}</details>"
    )


def _parameter(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    default = f" (default {schema['default']})" if "default" in schema else ""
    text = escape(parameter.get("description", "") + default)
    return f"<tr><td><code>{escape(parameter['name'])}</code><td>{escape(_kind(schema))}<td>{text}"


def _body(spec: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterable[str]:
    if "requestBody" not in operation:
        return
    schema = _resolved(spec, operation["requestBody"]["content"]["application/json"]["schema"])
    for name, field in schema["properties"].items():
        needed = "body, required" if name in schema.get("required", ()) else "body"
        yield f"<tr><td><code>{escape(name)}</code><td>{escape(_kind(field))}<td>{needed}"


def _answer(spec: Mapping[str, Any], operation: Mapping[str, Any]) -> str:
    good = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
    schema = good.get("content", {}).get("application/json", {}).get("schema", {})
    properties = _resolved(spec, schema).get("properties", {})
    if "items" in properties:
        item = _resolved(spec, properties["items"].get("items", {}))
        return f"<p>A page of items: <code>{_names(item)}</code></p>"
    return f"<p>Answer: <code>{_names({'properties': properties})}</code></p>" if properties else ""


def _names(schema: Mapping[str, Any]) -> str:
    return escape(", ".join(schema.get("properties", {})))


def _resolved(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference into the description's components."""
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    return str(schema.get("type", schema.get("$ref", "").rpartition("/")[2]))
