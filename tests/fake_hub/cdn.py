"""The second origin, where large files are.

Responsible for: minting signed, expiring URLs and serving them the way the Hub's object stores do:
no second credential, their own ETag, no Hub headers. Also takes LFS uploads, and counts CAS calls.
Not responsible for: who may have a URL (`resolve`, `writes`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlencode

from .catalogue import Entry, Repo
from .content import SmallFile
from .delivery import Delivery
from .handler import OriginHandler

if TYPE_CHECKING:
    from .app import FakeHub


@dataclass(slots=True)
class Grant:
    """What one URL is good for: until when, and for how many body bytes more (None: any)."""

    deadline: float
    bytes_left: int | None


class SignedUrls:
    """Mints and checks URLs. Safe from any thread."""

    def __init__(self, hub: FakeHub) -> None:
        self._hub = hub
        self._generation = 0
        self._numbers = itertools.count(1)
        self._grants: dict[str, Grant] = {}

    def expire_all(self) -> None:
        """Every URL minted so far is refused from now on."""
        self._generation += 1

    def download(self, repo: Repo, entry: Entry, filename: str) -> str:
        """A GET/HEAD URL of a large file."""
        sha256 = entry.content.sha256()
        disposition = f"inline; filename*=UTF-8''{quote(filename)}; filename=\"{filename}\";"
        extra = {"response-content-disposition": disposition}
        if entry.xet_hash is not None:
            path = f"/xet-bridge-us/{repo.object_id}/{sha256}"
            return self._sign(
                "GET", path, extra, expires="X-Amz-Expires", signature="X-Amz-Signature"
            )
        return self._sign(
            "GET", f"/repos/{sha256[:2]}/{sha256[2:4]}/{repo.object_id}/{sha256}", extra
        )

    def upload(self, sha256: str) -> str:
        """A PUT URL for a large file's bytes."""
        return self._sign("PUT", f"/uploads/{sha256}", {})

    def part(self, sha256: str, number: int) -> str:
        """A PUT URL for one part of a large file."""
        return self._sign("PUT", f"/parts/{sha256}/{number}", {})

    def _sign(
        self,
        method: str,
        path: str,
        extra: dict[str, str],
        expires: str = "Expires",
        signature: str = "Signature",
    ) -> str:
        grant = Grant(time.time() + self._hub.url_lifetime, self._hub.url_bytes)
        words = json.dumps({"Statement": [{"Id": next(self._numbers)}]})
        policy = base64.urlsafe_b64encode(words.encode()).decode().replace("=", "_")
        self._grants[policy] = grant
        query = {**extra, expires: str(int(grant.deadline)), "Policy": policy}
        query[signature] = self._signature(method, path, policy)
        query["Key-Pair-Id"] = "K24J24Z295AEI9"
        return f"{self._hub.cdn_url}{path}?{urlencode(query)}"

    def grant(self, method: str, path: str, query: str) -> Grant | None:
        """What is left of the URL of this request; None if we did not sign it, or it is over."""
        fields = {name: values[0] for name, values in parse_qs(query).items()}
        policy = fields.get("Policy", "")
        given = fields.get("Signature") or fields.get("X-Amz-Signature") or ""
        verb = "GET" if method == "HEAD" else method
        found = self._grants.get(policy)
        if found is None or time.time() >= found.deadline or found.bytes_left == 0:
            return None
        right = hmac.compare_digest(given, self._signature(verb, path, policy))
        return found if right else None

    def _signature(self, method: str, path: str, policy: str) -> str:
        text = f"{self._generation}\n{method}\n{path}\n{policy}"
        return hmac.new(b"fake hub", text.encode(), hashlib.sha256).hexdigest()


def _unpacked(xorb: bytes) -> bytes:
    """The bytes of a block's chunks. Each begins with its version, its length, how it is compressed
    (not at all: tests upload what cannot be) and its length before that."""
    pieces = []
    while xorb:
        length, scheme = int.from_bytes(xorb[1:4], "little"), xorb[4]
        if xorb[0] != 0 or scheme != 0:
            raise ValueError("a compressed chunk, or no chunk at all")
        pieces.append(xorb[8 : 8 + length])
        xorb = xorb[8 + length :]
    return b"".join(pieces)


class CdnHandler(OriginHandler):
    """Every request to the CDN origin."""

    host = "cdn"
    grant: Grant | None = None

    def allowance(self, size: int) -> int:
        """As many of the next `size` bytes as the URL is still good for; they count as sent."""
        if self.grant is None or self.grant.bytes_left is None:
            return size
        allowed = min(size, self.grant.bytes_left)
        self.grant.bytes_left -= allowed
        return allowed

    async def get(self) -> None:
        if self._is_cas():
            await self._error(404, "NotFound", "no such reconstruction")
        elif await self._admit():
            await self._send()

    async def head(self) -> None:
        await self.get()

    async def post(self) -> None:
        if self._is_cas():
            await self._take_xet()
        else:
            await self._error(405, "MethodNotAllowed", "The specified method is not allowed.")

    async def put(self) -> None:
        if not await self._admit():
            return
        if self.request.path.startswith("/parts/"):
            await self._take_part(self.request.path.split("/")[2])
            return
        sha256 = self.request.path.rpartition("/")[2]
        content = SmallFile(self.request.body)
        if content.sha256() != sha256:
            await self._error(400, "BadDigest", "The digest did not match what was received.")
            return
        self.hub.catalogue.large[sha256] = content
        await self.answer(b"", "application/xml", headers={"ETag": f'"{sha256[:32]}"'})

    async def _take_part(self, sha256: str) -> None:
        """A part of a file, which is put together when all are here (`writes.complete`)."""
        number = int(self.request.path.rpartition("/")[2])
        etag = hashlib.md5(self.request.body, usedforsecurity=False).hexdigest()
        self.hub.parts.setdefault(sha256, {})[number] = (etag, self.request.body)
        await self.answer(b"", "application/xml", headers={"ETag": f'"{etag}"'})

    async def _take_xet(self) -> None:
        """An upload by Xet: blocks of bytes, and what they make up. A client of today tries newer
        routes first, which older stores do not have."""
        path = self.request.path
        if self.request.headers.get("Authorization") != "Bearer xet_fake_write_token":
            await self._error(401, "Unauthorized", "no token that writes")
        elif path.startswith("/cas/v1/xorbs/"):
            content = SmallFile(_unpacked(self.request.body))
            self.hub.catalogue.large[content.sha256()] = content
            await self.answer(b'{"was_inserted": true}', "application/json")
        elif path == "/cas/v1/shards":
            await self.answer(b'{"result": 1}', "application/json")
        else:
            await self._error(404, "NotFound", "no such route")

    def _is_cas(self) -> bool:
        return self.request.path.startswith("/cas/")

    async def _admit(self) -> bool:
        if "Authorization" in self.request.headers:
            await self._error(
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
                "Signature query string parameter or the Authorization header should be specified",
            )
            return False
        request = self.request
        self.grant = self.hub.urls.grant(request.method, request.path, request.query)
        if self.grant is None:
            await self._error(403, "AccessDenied", "Request has expired")
            return False
        return True

    async def _send(self) -> None:
        sha256 = self.request.path.rpartition("/")[2]
        content = self.hub.catalogue.large.get(sha256)
        if content is None:
            await self._error(404, "NoSuchKey", "The specified key does not exist.")
            return
        headers = {
            "Content-Type": "application/octet-stream",
            "Cache-Control": "public, max-age=31536000",
            "X-Cache": "Miss from cloudfront",
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        }
        disposition = self.get_query_argument("response-content-disposition", "")
        if disposition.isascii():
            headers["Content-Disposition"] = disposition
        etag = hashlib.md5(sha256.encode(), usedforsecurity=False).hexdigest()
        await Delivery(self).send_file(content, headers, f'"{etag}"')

    async def _error(self, status: int, code: str, message: str) -> None:
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        )
        await self.answer(body.encode(), "application/xml", status=status)
