"""How remotes and distributions look on disk.

Responsible for: turning records into JSON rows whose secrets are sealed, and back; the last good
copy of all rows in one file.
Not responsible for: transactions, uniqueness or generations (`config_store`).
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jupyter_hf_cache.storage.records import Distribution, Remote
from jupyter_hf_cache.storage.secrets import SealedByAnotherKey, SecretBox

Row = dict[str, Any]

SECRET_FIELDS = (
    "hf_token",
    "client_key",
    "proxy_username",
    "proxy_password",
    "username",
    "password",
)

_REMOTE_FIELDS = frozenset(field.name for field in fields(Remote))
_DISTRIBUTION_FIELDS = frozenset(field.name for field in fields(Distribution))
_COPY_VERSION = 1


def seal_row(values: Mapping[str, Any], box: SecretBox) -> Row:
    """Return `values` of a remote with every secret and every header value sealed."""
    row = dict(values)
    for name in SECRET_FIELDS:
        if row.get(name):
            row[name] = box.seal(row[name])
    if row.get("headers"):
        row["headers"] = [
            {name: box.seal(value) for name, value in header.items()} for header in row["headers"]
        ]
    return row


def open_remote(row: Row, box: SecretBox) -> tuple[Remote, tuple[str, ...]]:
    """Return the remote of a sealed row, and the names of the fields that could not be opened.

    Such a field reads as not set; its sealed form stays in the row. Keys of a newer version of this
    package are left out of the record.
    """
    values = {name: value for name, value in row.items() if name in _REMOTE_FIELDS}
    unreadable: list[str] = []
    for name in SECRET_FIELDS:
        if values.get(name):
            try:
                values[name] = box.open(values[name])
            except SealedByAnotherKey:
                values[name] = None
                unreadable.append(name)
    if values.get("headers"):
        try:
            values["headers"] = [
                {name: box.open(value) for name, value in header.items()}
                for header in values["headers"]
            ]
        except SealedByAnotherKey:
            values["headers"] = None
            unreadable.append("headers")
    return Remote(**values), tuple(unreadable)


def open_distribution(row: Row) -> Distribution:
    """Return the distribution of a row."""
    return Distribution(**{name: row[name] for name in row if name in _DISTRIBUTION_FIELDS})


@dataclass(frozen=True, slots=True)
class ConfigCopy:
    """All rows of one generation, by id."""

    generation: int
    remotes: dict[str, Row]
    distributions: dict[str, Row]


class DamagedCopy(ValueError):
    """The file with the copy of the configuration cannot be understood."""


def write_copy(path: Path, copy: ConfigCopy) -> None:
    """Replace the file at `path` in one step; only the owner may read it.

    Raises:
        OSError: it cannot be written; the former copy is as it was.
    """
    text = json.dumps(
        {
            "version": _COPY_VERSION,
            "generation": copy.generation,
            "remotes": copy.remotes,
            "distributions": copy.distributions,
        },
        indent=1,
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        private.replace(path)
    finally:
        private.unlink(missing_ok=True)


def read_copy(path: Path, box: SecretBox) -> ConfigCopy | None:
    """Return the copy at `path`, or None when there is none.

    Raises:
        DamagedCopy: there is a file, but no configuration in it.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        copy = ConfigCopy(
            generation=int(body["generation"]),
            remotes=dict(body["remotes"]),
            distributions=dict(body["distributions"]),
        )
        for row in copy.remotes.values():
            open_remote(row, box)
        for row in copy.distributions.values():
            open_distribution(row)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedCopy(str(path)) from error
    return copy
