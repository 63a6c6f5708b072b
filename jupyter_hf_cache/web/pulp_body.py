"""Reading the body of a REST request.

Responsible for: JSON and forms, into one object of field values; refusing every other media type.
Not responsible for: how long a body may be (`handler`), or whether the values are any good
(`pulp_schema`).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from tornado.httputil import HTTPServerRequest

from jupyter_hf_cache.web.pulp_errors import NOT_AN_OBJECT, ApiError, detail, field_error
from jupyter_hf_cache.web.pulp_schema import Body

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def read_body(request: HTTPServerRequest, model: type[Body]) -> dict[str, Any]:
    """Return the field values of a request whose body has been collected; {} for an empty body.

    Args:
        model: what is expected; a form's text is read in its light.

    Raises:
        ApiError: 400 for what is no JSON object, 415 for other media types.
    """
    if not request.body:
        return {}
    content_type = request.headers.get("Content-Type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in _FORMS:
        return _read_form(request, model)
    if media_type != "application/json":
        raise detail(415, f'Unsupported media type "{content_type}" in request.')
    body = _read_json(request.body)
    if not isinstance(body, dict):
        message = NOT_AN_OBJECT.format(type(body).__name__)
        raise ApiError(400, {"non_field_errors": [message]})
    return body


def _read_json(content: bytes) -> Any:
    try:
        return json.loads(content.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        raise detail(400, "JSON parse error - it is nested too deeply.") from None
    except ValueError as error:
        raise detail(400, f"JSON parse error - {_without_content(error)}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"Out of range float values are not JSON compliant: {name}")


def _without_content(error: ValueError) -> str:
    # The error of a decoder shows the bytes at which it stopped.
    if isinstance(error, UnicodeDecodeError):
        return f"the body is not UTF-8 (at byte {error.start})"
    return str(error)


def _read_form(request: HTTPServerRequest, model: type[Body]) -> dict[str, Any]:
    texts = {name: values[-1] for name, values in request.body_arguments.items()}
    texts |= {name: files[-1]["body"] for name, files in request.files.items()}
    return {name: _form_value(name, text, model) for name, text in texts.items()}


def _form_value(name: str, content: bytes, model: type[Body]) -> Any:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise field_error(name, "Not a valid string.") from None
    if name in ("pulp_labels", "headers"):
        try:
            return _read_json(content)
        except ApiError:
            raise field_error(name, "Value must be valid JSON.") from None
    known = model.model_fields.get(name)
    if not text and known is not None and known.default is None:
        return None
    return text
