"""The types of single fields in REST bodies.

Responsible for: what a name, an upstream URL, a base path, a label, a certificate, a token or a
header may look like, each as one annotated type. Messages never repeat a secret.
Not responsible for: which resource has which fields (`pulp_schema`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from cryptography import x509
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

MASK = "********"
LABEL_KEY = re.compile(r"[\w .-]+")

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]*\w[\w.-]*)(:[0-9]{1,5})?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TOKEN = re.compile(r"[\x21-\x7e]*")
_CREDENTIAL_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
_FRAMING_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})


def stated(message: str) -> PydanticCustomError:
    """Return an error whose words are already those of the answer."""
    return PydanticCustomError("stated", "{message}", {"message": message})


def _text(value: str) -> str:
    if "\0" in value:
        raise stated("Null characters are not allowed.")
    return value


def _line(value: str) -> str:
    if not value.isprintable():
        raise stated("Control characters are not allowed.")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise stated("Enter a valid URL.") from error
    if parts.scheme == "file":
        raise stated("A file:// URL is not allowed here.")
    if "@" in parts.netloc:
        raise stated(
            "The remote url contains username or password. "
            "Please use remote username or password instead."
        )
    if not (
        host and port != 0 and parts.scheme in ("http", "https") and _clean(value, parts.netloc)
    ):
        raise stated("Enter a valid URL.")
    return value


def _mirror_url(value: str) -> str:
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise stated("The url of a mirror may not contain username or password.")
    return _url(value)


def _clean(value: str, netloc: str) -> bool:
    whole = value.isprintable() and not re.search(r"[\s\\?#<>\"{}|^`]", value)
    return whole and _HOST.fullmatch(netloc) is not None


def _proxy_url(value: str) -> str:
    if "@" in value:
        raise stated("proxy_url must not contain credentials")
    return _url(value)


def _base_path(value: str) -> str:
    segments = value.split("/")
    if re.search(r"[\s?#\\]", value) or not value.isprintable() or {"", ".", ".."} & set(segments):
        raise stated(f"Relative path is not in canonical form. {_shown(value)}")
    if value.startswith("~"):
        raise stated("base_path may not start with '~': capabilities do.")
    return value


def _shown(value: str) -> str:
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in value
    )


def _certificate(value: str) -> str:
    try:
        x509.load_pem_x509_certificates(value.encode())
    except ValueError as error:
        raise stated("This is not a certificate in PEM format.") from error
    return value


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise stated("A token has no spaces and no characters outside ASCII.")
    return value


def label_key(key: str) -> str:
    """Return the key of a label if it is one.

    Raises:
        PydanticCustomError: it has other characters than letters, digits, "_", " ", "." and "-".
    """
    if not LABEL_KEY.fullmatch(key):
        raise stated(f"Key '{_shown(key)}' may only have letters, digits, '_', ' ', '.' and '-'.")
    return key


def label_value(value: str | None) -> str | None:
    """Return the value of a label if it is one.

    Raises:
        PydanticCustomError: it has parentheses.
    """
    if value is not None and ("(" in value or ")" in value):
        raise stated("A label's value may not have parentheses.")
    return value


def _labels(labels: dict[str, str | None]) -> dict[str, str | None]:
    for key, value in labels.items():
        label_key(key)
        label_value(value)
    return labels


def _headers(headers: list[dict[str, str]]) -> list[dict[str, str]]:
    for name, value in (pair for header in headers for pair in header.items()):
        if not _HEADER_NAME.fullmatch(name):
            raise stated(f"'{_shown(name)}' is not the name of a header.")
        if name.lower() in _CREDENTIAL_HEADERS:
            raise stated(f"{name} is not allowed here. Use hf_token, or username and password.")
        if name.lower() in _FRAMING_HEADERS:
            raise stated(f"{name} is set by the cache itself.")
        if not _HEADER_VALUE.fullmatch(value):
            raise stated(f"The value of {name} is not allowed in a header.")
    return headers


def _no_boolean(value: Any) -> Any:
    # Python takes True for 1; its name is no number.
    return str(value) if isinstance(value, bool) else value


def _blank_is_none(value: Any) -> Any:
    return None if value == "" else value


# The limits stand before the functions: pydantic words them as those of a text only there.
_Trimmed = StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)
_Short = StringConstraints(strip_whitespace=True, min_length=1, max_length=255)
_Filled = StringConstraints(min_length=1)
_Plain = Annotated[str, AfterValidator(_text)]

Name = Annotated[str, _Short, AfterValidator(_text), AfterValidator(_line)]
Url = Annotated[str, _Trimmed, AfterValidator(_url)]
MirrorUrl = Annotated[str, _Trimmed, AfterValidator(_mirror_url)]
ProxyUrl = Annotated[str, _Trimmed, AfterValidator(_proxy_url)]
BasePath = Annotated[str, _Short, AfterValidator(_base_path)]
Reference = Annotated[
    Annotated[str, _Trimmed, AfterValidator(_text)] | None, BeforeValidator(_blank_is_none)
]
Certificate = Annotated[str, _Filled, AfterValidator(_text), AfterValidator(_certificate)]
Token = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=2000), AfterValidator(_token)
]
Secret = Annotated[str, StringConstraints(max_length=65536), AfterValidator(_text)]
Labels = Annotated[dict[_Plain, _Plain | None], AfterValidator(_labels)]
LabelKey = Annotated[str, _Filled, AfterValidator(_text), AfterValidator(label_key)]
LabelValue = Annotated[_Plain | None, AfterValidator(label_value)]
Headers = Annotated[list[dict[str, _Plain]], AfterValidator(_headers)]
Seconds = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, allow_inf_nan=False)]
Number = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0, le=2**31 - 1)]
Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1, le=2**31 - 1)]
