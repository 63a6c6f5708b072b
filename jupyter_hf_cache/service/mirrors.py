"""The mirrors of a remote, each as an upstream of its own.

Responsible for: what of a remote its mirrors inherit, and what they never see.
Not responsible for: when one is asked (`service.failover`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from jupyter_hf_cache.storage.records import DEFAULT_HUB, Remote

MOST_MIRRORS = 8
_SEPARATOR = "~"


@dataclass(frozen=True, slots=True)
class MirrorRemote(Remote):
    """A mirror. Its `id` is its own, so that verdicts, outages and kept answers are too.

    Args:
        send_token: it may see the token that the remote would be sent, and the remote's headers.
    """

    send_token: bool = False


def mirrors_of(remote: Remote) -> list[MirrorRemote]:
    """Return the mirrors of a remote in the order in which they are asked.

    They are reached as the remote is (proxy, time-outs, limits). User name, password and client
    certificate stay behind: they were made out for the remote.
    """
    found: dict[str, MirrorRemote] = {}
    for mirror in remote.mirrors or []:
        url, send_token = str(mirror["url"]), bool(mirror.get("send_token"))
        kept = {field.name: getattr(remote, field.name) for field in fields(Remote)}
        made = MirrorRemote(
            **kept
            | {
                "url": url,
                "hf_hub_url": DEFAULT_HUB,
                "hf_token": remote.hf_token if send_token else None,
                "headers": remote.headers if send_token else None,
                "username": None,
                "password": None,
                "client_cert": None,
                "client_key": None,
                "send_token": send_token,
            }
        )
        if made.origin_id != remote.origin_id:
            own = replace(made, id=f"{remote.id}{_SEPARATOR}{made.origin_id}")
            found.setdefault(own.origin_id, own)
    return list(found.values())


def remote_id_of(upstream_id: str) -> str:
    """Return the id of the remote that an upstream, itself or a mirror of it, belongs to."""
    return upstream_id.partition(_SEPARATOR)[0]
