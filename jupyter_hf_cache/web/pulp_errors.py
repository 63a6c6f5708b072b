"""Errors of the REST API in the shape that Pulp gives them.

Responsible for: the one exception with which REST code refuses something, the words of Pulp for
what a schema found wrong, and the body of every error answer.
Not responsible for: finding the errors (`pulp_schema`, `pulp_body`), or sending them
(`pulp_handler`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from tornado.web import HTTPError

from jupyter_hf_cache.errors import HfCacheError
from jupyter_hf_cache.storage.config_store import ConfigConflict

NOT_AN_OBJECT = "Invalid data. Expected a dictionary, but got {}."

_INTEGER = "A valid integer is required."
_NUMBER = "A valid number is required."
_WORDS = {
    "missing": "This field is required.",
    "extra_forbidden": "Unexpected field",
    "string_type": "Not a valid string.",
    "string_unicode": "Not a valid string.",
    "string_too_short": "This field may not be blank.",
    "bool_type": "Must be a valid boolean.",
    "bool_parsing": "Must be a valid boolean.",
    "int_type": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": _INTEGER,
    "int_from_float": _INTEGER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
}
# Fields that hold records with fields of their own, which a message names.
_NESTED = frozenset({"mirrors"})


class ApiError(HfCacheError):
    """A refusal of the REST API, with its body.

    Args:
        status: of the answer.
        body: what is sent; never holds a secret.
    """

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__("The REST API refused a request.", status=status)
        self.body = dict(body)


def field_error(field: str, message: str) -> ApiError:
    """Return a 400 about one field."""
    return ApiError(400, {field: [message]})


def detail(status: int, message: str) -> ApiError:
    """Return an error that is about no field."""
    return ApiError(status, {"detail": message})


def from_validation(error: ValidationError) -> ApiError:
    """Return the 400 for everything that a schema found wrong, by field."""
    body: dict[str, list[str]] = {}
    for found in error.errors(include_url=False):
        messages = body.setdefault(str(found["loc"][0]), [])
        message = _words(found)
        if found["loc"][0] in _NESTED and len(found["loc"]) > 2:
            message = f"{found['loc'][-1]}: {message}"
        if message not in messages:
            messages.append(message)
    return ApiError(400, body)


def from_conflict(error: ConfigConflict) -> ApiError:
    """Return the 400 for a value that another record stands against."""
    if error.nested:
        return ApiError(400, {error.field: {error.field: error.message}})
    return field_error(error.field, error.message)


def error_body(
    error: BaseException | None, status: int, *, method: str, credentials: bool
) -> tuple[int, dict[str, Any]]:
    """Return status and body of the answer for whatever stopped a request.

    Args:
        error: what was raised, if anything.
        status: used where the error does not know better.
        method: of the request.
        credentials: the request brought an `Authorization`.
    """
    if isinstance(error, ConfigConflict):
        error = from_conflict(error)
    if isinstance(error, ApiError):
        return error.status, error.body
    if isinstance(error, HfCacheError):
        status = error.status
    elif isinstance(error, HTTPError):
        status = error.status_code
    body = {"detail": _detail(status, error, method, credentials)}
    if isinstance(error, HfCacheError) and status in (401, 403):
        # Pulp's clients know the fixed sentence; people need to know why.
        body["reason"] = error.text
    return status, body


def _detail(status: int, error: BaseException | None, method: str, credentials: bool) -> str:
    if status == 401:
        if credentials:
            return "Invalid username/password."
        return "Authentication credentials were not provided."
    if status == 405:
        return f'Method "{method}" not allowed.'
    if status in (403, 404):
        return {403: "You do not have permission to perform this action.", 404: "Not found."}[
            status
        ]
    if isinstance(error, HfCacheError):
        return error.text
    if isinstance(error, HTTPError) and status < 500:
        return error.log_message or error.reason or "The request cannot be understood."
    return "A server error occurred."


def _words(found: ErrorDetails) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if found["input"] is None and kind not in ("missing", "stated"):
        return "This field may not be null."
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "literal_error":
        return f'"{found["input"]}" is not a valid choice.'
    if kind == "string_too_long":
        return f"Ensure this field has no more than {context['max_length']} characters."
    if kind == "too_long":
        return f"Ensure this field has no more than {context['max_length']} elements."
    if kind == "greater_than_equal":
        return f"Ensure this value is greater than or equal to {context['ge']:g}."
    if kind == "less_than_equal":
        return f"Ensure this value is less than or equal to {context['le']:d}."
    if kind in ("list_type", "dict_type", "model_type"):
        wanted = "list" if kind == "list_type" else "dictionary"
        return f'Expected a {wanted} of items but got type "{type(found["input"]).__name__}".'
    return found["msg"]
