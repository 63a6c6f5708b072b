"""URLs in answers to writes: what a person sees, stores and clicks on.

Responsible for: writing the `url` of a new repo and the `commitUrl` of a commit so that they name
the Hub, hold no capability, and can be read by the client that asked.
Not responsible for: URLs that a client itself calls (`rewrite`).

huggingface_hub reads a repo's name out of both fields and raises, after the upload has succeeded,
where it does not know the host. It also puts its endpoint, and with it the capability, in the place
of a literal "https://huggingface.co". What is written here evades both:

- https://hf.co, the Hub's own short name, where the client knows it (from release 1.20 on);
- hf://owner/name, which every release reads, where the Hub has another name, or the client is
  older;
- https://huggingface.co//owner/name in the commit URL of a model for those older ones. They take
  the segment before the owner for the type of the repo, and an empty one for a model; the Hub takes
  two slashes for one. Other clients get what the Hub wrote.
"""

from __future__ import annotations

import re
from typing import Any

from jupyter_hf_cache.protocol.rewrite import own_path

HUB = "https://huggingface.co"
SHORT_HUB = "https://hf.co"

_CLIENT = re.compile(r"\bhf_hub/(\d+)\.(\d+)")
_KNOWS_SHORT_HUB = (1, 20)
_TYPED = ("/datasets/", "/spaces/", "/kernels/", "/buckets/")


def client_release(user_agent: str) -> tuple[int, int] | None:
    """The release of huggingface_hub that a `User-Agent` names; None for any other client."""
    match = _CLIENT.search(user_agent)
    return (int(match[1]), int(match[2])) if match else None


def show_urls(body: Any, origin: str, release: tuple[int, int] | None) -> Any:
    """The body of an answer to a write with its URLs of repos and commits as `release` reads them.

    Args:
        body: parsed JSON; anything but an object is left alone.
        origin: URL of the upstream, with its base path if it has one.
        release: of huggingface_hub, see `client_release`.
    """
    if release is None or not isinstance(body, dict):
        return body
    shown = {
        key: _shown(body[key], origin, release, of_commit=key == "commitUrl")
        for key in ("url", "commitUrl")
        if key in body
    }
    return {**body, **shown}


def _shown(value: Any, origin: str, release: tuple[int, int], *, of_commit: bool) -> Any:
    if not isinstance(value, str) or not value.lower().startswith(("http://", "https://")):
        return value
    path = own_path(value, HUB)
    if path is None:
        path = own_path(value, origin)
        return value if path is None else f"hf:/{path}"
    if release >= _KNOWS_SHORT_HUB:
        return SHORT_HUB + path
    if not of_commit:
        return f"hf:/{path}"
    return HUB + path if path.startswith(_TYPED) else f"{HUB}/{path}"
