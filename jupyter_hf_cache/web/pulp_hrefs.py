"""Addresses and names of REST resources.

Responsible for: building `pulp_href` and `prn`, and reading every form in which clients give them
back: the href, the same below a base URL, a full URL, a PRN.
Not responsible for: whether the resource exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

API = "/pulp/api/v3/"
NO_MATCH = "Invalid hyperlink - No URL match."

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


@dataclass(frozen=True, slots=True)
class Collection:
    """A kind of REST resource.

    Args:
        path: below the API root, with a slash at the end.
        model: the part of a PRN that names the kind.
    """

    path: str
    model: str

    @property
    def href(self) -> str:
        """The address of the collection, without the server's base URL."""
        return API + self.path

    def href_of(self, resource_id: str) -> str:
        """Return the address of one resource, without the server's base URL."""
        return f"{self.href}{resource_id}/"

    def prn_of(self, resource_id: str) -> str:
        """Return the PRN of one resource."""
        return f"prn:{self.model}:{resource_id}"

    def id_of(self, reference: str) -> str | None:
        """Return the id in an href, prefixed href, URL or PRN; None if it is none of this kind."""
        found = re.fullmatch(rf"prn:{re.escape(self.model)}:({_UUID})", reference) or re.fullmatch(
            rf"(?:https?://[^/?#\s]+)?(?:/[^?#\s]*)?{re.escape(self.href)}({_UUID})/?", reference
        )
        return found[1].lower() if found else None

    @property
    def route(self) -> str:
        """The route of the collection, relative to the server's base URL."""
        return self.href.lstrip("/") + "?"

    def item_route(self, action: str = "") -> str:
        """Return the route of one resource, or of an action on it such as "set_label"."""
        return self.href.lstrip("/") + f"({_UUID})/" + (f"{action}/?" if action else "?")


REMOTES = Collection("remotes/hugging_face/hugging-face/", "hugging_face.huggingfaceremote")
DISTRIBUTIONS = Collection(
    "distributions/hugging_face/hugging-face/", "hugging_face.huggingfacedistribution"
)
TASKS = Collection("tasks/", "core.task")
