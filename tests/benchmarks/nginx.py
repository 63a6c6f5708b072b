"""nginx on free loopback ports with a configuration of its own.

Responsible for: a static folder, and the usual proxy_cache recipe before the fake Hub and its CDN.
Not responsible for: what is asked of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from tests.clients.server import free_port, wait_for

from .machine import BenchmarkError, answers
from .places import Place

_CONFIG = """\
daemon off;
worker_processes auto;
pid {root}/nginx.pid;
error_log {root}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  default_type application/octet-stream;
  types {{ application/json json; }}
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  proxy_cache_path {root}/cache keys_zone=files:8m max_size=64g inactive=1d use_temp_path=off;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Accept-Encoding "";
  server {{
    listen 127.0.0.1:{static_port};
    root {static};
  }}
  server {{
    listen 127.0.0.1:{port};
    proxy_cache files;
    proxy_cache_valid 200 302 307 1d;
    proxy_cache_convert_head off;
    proxy_cache_lock on;
    proxy_cache_lock_timeout 1h;
    proxy_cache_lock_age 1h;
    proxy_ignore_headers Cache-Control Expires Vary;
    location / {{
      proxy_pass {hub};
      proxy_cache_key $request_method$request_uri;
      proxy_redirect {cdn}/ /cdn/;
    }}
    location /cdn/ {{
      # By number: nginx would try ::1 too where the Hub says localhost.
      proxy_pass http://127.0.0.1:{cdn_port}/;
      proxy_set_header Host {cdn_host};
      proxy_cache_key $request_method$uri;
    }}
  }}
}}
"""


def find() -> str:
    """The program.

    Raises:
        BenchmarkError: it is not installed.
    """
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if found is None:
        raise BenchmarkError("nginx is not installed (Debian: apt install nginx-light)")
    return found


class Nginx:
    """A running nginx.

    Args:
        root: folder for its files; `static` in it is what it serves.
        hub, cdn: the two origins behind proxy_cache.

    Raises:
        BenchmarkError: it is not installed.
    """

    def __init__(self, root: Path, hub: str, cdn: str) -> None:
        self._program = find()
        self.root = root
        self._hub, self._cdn = hub, cdn
        self._ports = free_port(), free_port()
        self.static = root / "static"
        self.static.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def file(self, name: str) -> str:
        """URL of a static file."""
        return f"http://127.0.0.1:{self._ports[0]}/{name}"

    @property
    def endpoint(self) -> str:
        """Of the Hub through proxy_cache."""
        return f"http://127.0.0.1:{self._ports[1]}"

    def start(self) -> None:
        """Start and wait until it listens.

        Raises:
            BenchmarkError: it does not; with its log.
        """
        config = self.root / "nginx.conf"
        text = _CONFIG.format(
            root=self.root,
            static=self.static,
            static_port=self._ports[0],
            port=self._ports[1],
            user="user root;" if os.geteuid() == 0 else "",
            hub=self._hub,
            cdn=self._cdn,
            cdn_host=urlsplit(self._cdn).netloc,
            cdn_port=urlsplit(self._cdn).port,
        )
        config.write_text(text, encoding="utf-8")
        with (self.root / "output").open("wb") as output:
            command = [self._program, "-e", str(self.root / "error.log"), "-c", str(config)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            wait_for(self._look, "nginx", 20)
        except AssertionError as problem:
            self.stop()
            log = (self.root / "error.log").read_text(errors="replace")
            raise BenchmarkError(f"{problem}\n{log}") from None

    def _look(self) -> bool | None:
        assert self._process is not None
        assert self._process.poll() is None, "nginx ended"
        return all(map(answers, self._ports)) or None

    def stop(self) -> None:
        """End it and its workers. Safe to call at any time."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)


class ProxyCache(Place):
    """What nginx's proxy_cache keeps."""

    def __init__(self, nginx: Nginx) -> None:
        super().__init__("nginx proxy_cache", nginx.endpoint)
        self._nginx = nginx

    @property
    def pid(self) -> int:
        return self._nginx.pid

    def _forget(self, repo: str) -> None:
        self._kept.clear()
        for file in (self._nginx.root / "cache").rglob("*"):
            if file.is_file():
                file.unlink()
