"""Errors as people and machines read them: RFC 9457 problem details, each with a stable code and a hint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from devices.errors import ConfigError, ConflictError, NotFoundError, QalaError, UnavailableError

__all__ = ["MEDIA_TYPE", "ProblemError", "install", "problem_response"]

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_STATUS: Mapping[type[QalaError], int] = {
    NotFoundError: 404,
    ConflictError: 409,
    ConfigError: 422,
    UnavailableError: 503,
}
_HINTS = {
    404: "/api/docs lists every address of the API",
    405: "/api/docs lists the methods of every address",
}


class ProblemError(QalaError):
    """A request that cannot be answered, with its HTTP status, a code for machines and a hint for people."""

    def __init__(
        self, status: int, code: str, message: str, *, hint: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.headers = headers


def problem_response(
    status: int, code: str, detail: str, hint: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Make the response of a problem; `more` are further members of its body."""
    body = {
        "type": f"urn:qala:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "hint": hint,
        "code": code,
        **more,
    }
    return Response(msgspec.json.encode(body), status, dict(headers or {}), MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""
    app.add_exception_handler(QalaError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _unexpected)


async def _of_ours(_request: Request, error: Exception) -> Response:
    assert isinstance(error, QalaError)  # noqa: S101 - registered for it
    if isinstance(error, ProblemError):
        return problem_response(error.status, error.code, error.message, error.hint, error.headers)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    return problem_response(status, error.code, error.message, error.hint)


async def _of_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    errors = [
        {"in": str(item["loc"][0]), "field": ".".join(map(str, item["loc"][1:])), "message": item["msg"]}
        for item in error.errors()[:20]
    ]
    first = errors[0]
    detail = f"{first['field'] or first['in']}: {first['message']}"
    hint = "/api/docs shows what this address takes"
    return problem_response(422, "invalid_request", detail, hint, errors=errors)


async def _of_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    hint = _HINTS.get(error.status_code, "")
    return problem_response(error.status_code, code, str(error.detail), hint, error.headers)


async def _unexpected(request: Request, _error: Exception) -> Response:
    logger.error("%s %s failed unexpectedly", request.method, request.url.path)
    detail = "the server met an error that it did not expect"
    return problem_response(500, "internal", detail, "the server's log says more; please report it")
