"""@huggingface/hub in a page of another origin, in a real browser: with the option, and without."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from clients import node
from fake_hub import BigFile, FakeHub
from selenium.webdriver import Chrome
from serve_process import Serving

pytestmark = [pytest.mark.browser, pytest.mark.clients]

PACKAGES = {
    "@huggingface/hub": "dist/browser/index.mjs",
    "@huggingface/xetchunk-wasm": "dist/esm/index.js",
    "@huggingface/blake3-jit": "dist/esm/index.js",
    "gearhash-jit": "dist/esm/index.js",
}
MAP = {name: f"/node_modules/{name}/{file}" for name, file in PACKAGES.items()}
PAGE = f'<script type="importmap">{json.dumps({"imports": MAP})}</script><title>page</title>'
READ = """
const [hubUrl, done] = arguments;
const repo = "org/large";
(async () => {
  const hub = await import("@huggingface/hub");
  const blob = await hub.downloadFile({repo, path: "model.bin", hubUrl});
  const piece = await blob.slice(5000000, 5001000).arrayBuffer();
  const digest = await crypto.subtle.digest("SHA-256", piece);
  const names = [];
  for await (const file of hub.listFiles({repo, hubUrl, recursive: true})) names.push(file.path);
  let gated;
  try {
    await hub.downloadFile({repo: "org/gated", path: "config.json", hubUrl});
  } catch (error) { gated = error.statusCode; }
  const mine = {hubUrl, accessToken: "hf_reader"};
  const granted = await hub.downloadFile({repo: "org/gated", path: "config.json", ...mine});
  let created = "created";
  try {
    await hub.createRepo({repo: "alice/from-a-page", hubUrl, accessToken: "hf_alice"});
  } catch (error) { created = error.statusCode; }
  return {
    piece: [...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, "0")).join(""),
    size: blob.size, names, gated, granted: await granted.text(), created,
  };
})().then(done, (error) => done({failed: String(error)}));
"""


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map = {".mjs": "text/javascript", ".js": "text/javascript", ".html": "text/html"}

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a web site that uses the package."""
    root = tmp_path_factory.mktemp("site")
    (root / "node_modules").symlink_to(node.modules())
    (root / "index.html").write_text(PAGE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def read_from(browser: Chrome, page: str, endpoint: str) -> dict[str, Any]:
    browser.set_script_timeout(60)
    browser.get(page)
    result: dict[str, Any] = browser.execute_async_script(READ, endpoint)
    return result


def test_a_page_of_an_allowed_origin_uses_the_hub_through_the_cache(
    browser: Chrome, page: str, hub: FakeHub, tmp_path: Path
) -> None:
    with Serving(tmp_path, hub, f"--cors-origin={page}") as serving:
        read = read_from(browser, page, serving.endpoint)
    weights = BigFile(8 * (1 << 20) + 12345, seed=1)
    assert read == {
        "piece": hashlib.sha256(weights.read(5_000_000, 1000)).hexdigest(),
        "size": weights.size,
        "names": ["README.md", "copy", "copy/model.bin", "model.bin", "shard.bin"],
        "gated": 401,
        "granted": '{"model_type": "bert"}',
        "created": 403,
    }


@pytest.mark.parametrize("other", [None, "https://pages.example.org"])
def test_a_page_of_any_other_origin_learns_nothing(
    browser: Chrome, page: str, hub: FakeHub, tmp_path: Path, other: str | None
) -> None:
    options = [f"--cors-origin={other}"] if other else []
    with Serving(tmp_path, hub, *options) as serving:
        assert "Failed to fetch" in read_from(browser, page, serving.endpoint)["failed"]
