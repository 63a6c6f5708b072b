"""Capabilities: entrance tickets that fit into a URL.

Clients of the Hub follow the path of `HF_ENDPOINT`, but cannot be taught a second header. A
capability is one path segment after `~`: version, key id, expiry, optionally a name, and an HMAC
over them. Processes that share the key agree on it, also after a restart.

A named key is a capability with a random part instead of the name. It counts only while it is in
the list of keys, which holds a hash of it: who can read the list, or the key file, cannot make it.

Responsible for: issuing, checking and rotating them, and hiding them from logs.
Not responsible for: where a capability counts (`entrance`), where the key comes from
(`storage.secrets`), or the list of named keys (`storage.keys`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_VERSION = "1"
_NAMED = "2"
_NEVER = 0
_RANDOM_BYTES = 16
_CONTEXT = b"jupyter-hf-cache capability\0"
_GENUINE_IN_MEMORY = 1000
_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,512}")
_IN_URL = re.compile(r"(pulp/content/~)[^/?#\s\"']*")
_SECRET_QUERY = re.compile(r"([?&](?:[^=&\s]*token[^=&\s]*|_xsrf)=)[^&#\s]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid capability says.

    Args:
        subject: whom it was made for, "" for the server's own user.
        expires: Unix time in seconds, 0 for never.
        verifier: of a named key: by what the list of keys knows it; else "".
    """

    subject: str
    expires: int
    verifier: str = ""


class Capabilities:
    """Issues and checks capabilities. Thread-safe.

    Args:
        keys: the first one signs, all of them are accepted. To rotate, put a new key in front and
            keep the old one until its last capability has expired.
        clock: Unix time in seconds.
    """

    def __init__(self, keys: Sequence[bytes], clock: Callable[[], float] = time.time) -> None:
        if not keys:
            raise ValueError("at least one key is needed")
        self._keys = {_key_id(key): key for key in reversed(keys)}
        self._signing = _key_id(keys[0])
        self._clock = clock
        self._genuine: dict[str, Grant] = {}

    def issue(self, lifetime: float, subject: str = "") -> str:
        """A new capability (without the leading `~`).

        Args:
            lifetime: seconds from now.
            subject: a user's name, told back by `verify`.
        """
        fields = [_VERSION, self._signing, format(int(self._clock() + lifetime), "x")]
        if subject:
            fields.append(_encode(subject.encode()))
        return self._signed(fields)

    def issue_key(self, expires: float | None) -> str:
        """A new key, which counts once `verifier_of` it is in the list of keys.

        Args:
            expires: Unix time in seconds, or None for never.
        """
        until = _NEVER if expires is None else int(expires)
        random = _encode(secrets.token_bytes(_RANDOM_BYTES))
        return self._signed([_NAMED, self._signing, format(until, "x"), random])

    def verify(self, capability: str) -> Grant | None:
        """What it grants, or None: malformed, made with another key, changed, or expired. Of a
        named key the list has to be asked besides."""
        grant = self._genuine.get(capability)
        if grant is None:
            grant = self._read(capability)
            if grant is None:
                return None
            if len(self._genuine) >= _GENUINE_IN_MEMORY:
                self._genuine.clear()
            # Every request of a client brings the same one.
            self._genuine[capability] = grant
        never = bool(grant.verifier) and grant.expires == _NEVER
        return grant if never or grant.expires > self._clock() else None

    def _read(self, capability: str) -> Grant | None:
        """What a capability says, expired or not; None if it was not made with our key."""
        fields = capability.split(".")
        if _SEGMENT.fullmatch(capability) is None or len(fields) not in (4, 5):
            return None
        version, key_id, expires = fields[:3]
        if key_id not in self._keys or version not in (_VERSION, _NAMED):
            return None
        named = version == _NAMED
        if named and len(fields) != 5:
            return None
        wanted = self._sign(key_id, ".".join(fields[:-1]))
        try:
            if not hmac.compare_digest(wanted, _decode(fields[-1])):
                return None
            until = int(expires, 16)
            subject = _decode(fields[3]).decode() if len(fields) == 5 and not named else ""
        except (ValueError, binascii.Error):
            return None
        return Grant(subject, until, verifier_of(capability) if named else "")

    def _signed(self, fields: Sequence[str]) -> str:
        body = ".".join(fields)
        return f"{body}.{_encode(self._sign(self._signing, body))}"

    def _sign(self, key_id: str, body: str) -> bytes:
        return hmac.new(self._keys[key_id], _CONTEXT + body.encode(), hashlib.sha256).digest()


def verifier_of(key: str) -> str:
    """What the list of keys holds of a named key."""
    return hashlib.sha256(key.encode()).hexdigest()


def split(path: str) -> tuple[str | None, str]:
    """Separate a content path into (capability or None, rest).

    Args:
        path: raw path below `/pulp/content/`; the `~` may be percent-encoded, as some clients quote
            it.
    """
    marker = next((m for m in ("~", "%7E", "%7e") if path.startswith(m)), None)
    if marker is None:
        return None, path
    capability, _, rest = path[len(marker) :].partition("/")
    return capability, rest


def redact(text: str) -> str:
    """The text without capabilities and without the values of token parameters, for logs."""
    text = text.replace("/%7E", "/~").replace("/%7e", "/~")
    return _SECRET_QUERY.sub(r"\1…", _IN_URL.sub(r"\1…", text))


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"key id\0" + key).hexdigest()[:8]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
