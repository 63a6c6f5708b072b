"""nginx on a free loopback port with a configuration of its own.

Responsible for: a static folder, and proxy_cache before the fake Hub's signed URL.
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
  proxy_cache_path {root}/cache keys_zone=files:1m max_size=64g inactive=1d use_temp_path=off;
  server {{
    listen 127.0.0.1:{port};
    root {static};
    location = /cached/big {{
      proxy_pass {target};
      proxy_http_version 1.1;
      proxy_set_header Host {host};
      proxy_set_header Connection "";
      proxy_cache files;
      proxy_cache_key big;
      proxy_cache_valid 200 1d;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 1h;
      proxy_cache_lock_age 1h;
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
        target: signed URL of the big file at the fake Hub, for `cached`.
    """

    def __init__(self, root: Path, target: str) -> None:
        self._root = root
        self._port = free_port()
        self._target = target
        self.static = root / "static"
        self.static.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def file(self, name: str) -> str:
        """URL of a static file."""
        return f"http://127.0.0.1:{self._port}/{name}"

    @property
    def cached(self) -> str:
        """URL of the big file through proxy_cache."""
        return self.file("cached/big")

    def forget(self) -> None:
        """Make the next request for `cached` a cold one."""
        for file in (self._root / "cache").rglob("*"):
            if file.is_file():
                file.unlink()

    def start(self) -> None:
        """Start and wait until it listens.

        Raises:
            BenchmarkError: it does not; with its log.
        """
        target = urlsplit(self._target)
        config = self._root / "nginx.conf"
        text = _CONFIG.format(
            root=self._root,
            static=self.static,
            port=self._port,
            user="user root;" if os.geteuid() == 0 else "",
            # By number: nginx would try ::1 too where the Hub says localhost.
            target=f'"http://127.0.0.1:{target.port}{target.path}?{target.query}"',
            host=target.netloc,
        )
        config.write_text(text, encoding="utf-8")
        with (self._root / "output").open("wb") as output:
            command = [find(), "-e", str(self._root / "error.log"), "-c", str(config)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            wait_for(self._look, "nginx", 20)
        except AssertionError as problem:
            self.stop()
            log = (self._root / "error.log").read_text(errors="replace")
            raise BenchmarkError(f"{problem}\n{log}") from None

    def _look(self) -> bool | None:
        assert self._process is not None
        assert self._process.poll() is None, "nginx ended"
        return answers(self._port) or None

    def stop(self) -> None:
        """End it and its workers. Safe to call at any time."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)
