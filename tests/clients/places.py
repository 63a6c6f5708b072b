"""Other ways to a server: from another host, and through nginx.

Responsible for: a network namespace with an address of its own, and a real nginx in front of a
server, both gone when the block ends.
Not responsible for: the server (`server`), or who is let in.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clients.server import ServerProcess, free_port, wait_for

NGINX = """\
worker_processes 1;
daemon off;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location {prefix}/ {{
            proxy_pass http://127.0.0.1:{upstream}{path};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Prefix "{prefix}";
        }}
    }}
}}
"""


_OTHER_HOSTS = itertools.count()


@dataclass(frozen=True)
class OtherHost:
    """A network namespace that reaches this machine.

    Args:
        address: of this machine, as seen from there.
        inside: the command that runs another one there.
    """

    address: str
    inside: tuple[str, ...]


@contextmanager
def other_host() -> Iterator[OtherHost]:
    """A network namespace for as long as the block runs. Needs root on Linux."""
    number = (os.getpid() + next(_OTHER_HOSTS)) % 2**14
    name, near, far = f"hfcache{number}", f"hfc{number}a", f"hfc{number}b"
    # A /30 of its own for each, within 10.128.0.0/16.
    base = f"10.128.{number // 64}."
    here, there = number % 64 * 4 + 1, number % 64 * 4 + 2
    run = ("ip", "netns", "exec", name)
    _ip("netns", "add", name)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        _ip("addr", "add", f"{base}{here}/30", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", name, "addr", "add", f"{base}{there}/30", "dev", far)
        _ip("-n", name, "link", "set", far, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        yield OtherHost(f"{base}{here}", run)
    finally:
        # The namespace alone would take its interfaces with it only some time later.
        subprocess.run(["ip", "link", "del", near], capture_output=True)
        _ip("netns", "del", name)


@contextmanager
def nginx(root: Path, server: ServerProcess, prefix: str = "") -> Iterator[str]:
    """An nginx in front of `server`; yields the host to use instead of the server's.

    Args:
        root: made; for its configuration, log and temporary files.
        prefix: a path that nginx puts before the server's own, and takes away.
    """
    root.mkdir(parents=True)
    port = free_port()
    # Told a path, nginx decodes what it passes on; without a prefix everything stays as it came.
    path = "/" if prefix else ""
    config = NGINX.format(root=root, port=port, upstream=server.port, prefix=prefix, path=path)
    (root / "nginx.conf").write_text(config, encoding="utf-8")
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
    assert program is not None
    command = [
        program,
        "-p",
        str(root),
        "-e",
        str(root / "error.log"),
        "-c",
        str(root / "nginx.conf"),
    ]
    with subprocess.Popen(command) as process:
        try:
            wait_for(lambda: (root / "nginx.pid").exists() or None, "nginx", 10)
            yield f"http://127.0.0.1:{port}{prefix}{server.base_url.rstrip('/')}"
        finally:
            process.terminate()


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
