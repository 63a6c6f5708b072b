"""Nothing that comes from a repository or an upstream runs as the Jupyter server's own page.

Each test opens every hostile address in a logged-in browser, and then, in the same way, a page of
the server's own with the same script. That one must be heard of, which shows that the way works and
gives the others their time; nobody else may be.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import FakeHub
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait
from ui.hostile_hub import DOCUMENTS, Attack, Listener, hostile_hub, listening

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

PREFIX = "/user/a%40b/"
TOKEN = "a-token-of-the-test"
API = f"{PREFIX}api/contents"
PULP = "pulp/api/v3/{}/hugging_face/hugging-face/"
REFUSED = (401, 403, 404, 429, 500)
FORWARDED = (
    "login",
    "org/evil",
    "org/evil/blob/main/page.html",
    "org/evil/raw/main/page.html",
    "spaces/org/evil",
    "api/whoami-v2",
    "api/settings/page",
    "api/models",
    "api/models/org/evil/refs",
    "api/models/org/evil/commits/main",
    "api/models/org/evil/tree/main",
    "api/models/org/evil/discussions",
    "page.html",
)
PATHS = (
    *(f"hf/spaces/org/hostile/resolve/main/{file}" for file in DOCUMENTS),
    *(f"hf/org/hostile/resolve/main/{file}" for file in DOCUMENTS),
    "hf/spaces/org/hostile/raw/main/page.html",
    "hf/spaces/org/hostile/resolve/main/page.html?download=true",
    "hf/spaces/org/hostile/resolve/no-such-branch/<script>document.title='ran'</script>.html",
    "hf/spaces/org/<script>document.title='ran'</script>/resolve/main/page.html",
    *(f"hostile/org/evil/resolve/main/{file}" for file in DOCUMENTS),
    *(f"hostile/org/evil/resolve/main/error-{status}.html" for status in REFUSED),
    *(f"hostile/{path}" for path in FORWARDED),
    "no-such-distribution/<script>document.title='ran'</script>",
    "hf/%2e%2e/<script>document.title='ran'</script>",
)
"""Everything hostile below `pulp/content/`."""

SAFE_TYPES = re.compile(r"(application/(json|octet-stream|yaml|zip|gzip)|text/(plain|markdown))\b")
SHOWN_TYPES = re.compile(r"(application/json|text/plain)\b")
SANDBOX = {
    "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
WEAK = (
    "set-cookie", "service-worker-allowed", "clear-site-data", "strict-transport-security",
    "x-frame-options", "sourcemap", "refresh", "location",
)  # fmt: skip
CONTROL = "control"


@dataclass(frozen=True)
class Stage:
    """A server with hostile content behind it, and a page of its own that has the same script.

    Args:
        url: the server's root.
        log: its log, every request in it.
        entrances: URL of the content by the way one comes in.
        listener: hears from every script that runs.
        own: URL of the folder of the server's own pages.
    """

    url: str
    log: Path
    entrances: dict[str, str]
    listener: Listener
    own: str

    def addresses(self, entrance: str) -> list[str]:
        return [self.entrances[entrance] + path for path in PATHS]

    def answered(self) -> int:
        """How many requests for content the log has."""
        return len(re.findall(r"\d{3} GET \S*/pulp/content/", self.log.read_text(errors="replace")))

    def callers(self) -> set[str]:
        """Who asked Jupyter's API, by the server's own log."""
        return set(
            re.findall(rf"GET {re.escape(API)}\?by=(\S+)", self.log.read_text(errors="replace"))
        )


@pytest.fixture(scope="module")
def stage(
    start_lab: Callable[..., Any], hub: FakeHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    own = tmp_path_factory.mktemp("own")
    with listening() as listener:
        attack = Attack(listener.url, API)
        for file in ("page.html", "script.js"):
            (own / file).write_bytes(attack.document(file, CONTROL))
        (own / "host.html").write_text("<!doctype html><title>host</title>", encoding="utf-8")
        for type, large in (("spaces", False), ("models", True)):
            files = {file: attack.document(file, f"{type}-{file}") for file in DOCUMENTS}
            hub.repo(type, "org/hostile").commit(files, lfs=large)
        lab = start_lab(f"--ServerApp.extra_static_paths={own}", "--Application.log_level=DEBUG")
        with hostile_hub(attack) as upstream:
            _add_distribution(lab.url, upstream)
            endpoint = _api("GET", f"{lab.url}hf-cache/v1/status")["kernel_endpoint"]
            capability = re.findall(r"/~[^/]+/", endpoint)[0]
            yield Stage(
                url=lab.url,
                log=lab.folder.parent / "log",
                entrances={
                    "plain": f"{lab.url}pulp/content/",
                    # By the name under which the browser is logged in.
                    "capability": f"{lab.url}pulp/content{capability}",
                },
                listener=listener,
                own=f"{lab.url}static/",
            )


def _api(method: str, address: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    login = {"Authorization": f"token {TOKEN}"}
    answer = requests.request(method, address, json=body, headers=login, timeout=30)
    assert answer.ok, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _add_distribution(url: str, upstream: str) -> None:
    remote = _api("POST", url + PULP.format("remotes"), {"name": "hostile", "url": upstream})
    body = {"name": "hostile", "base_path": "hostile", "remote": remote["pulp_href"]}
    _api("POST", url + PULP.format("distributions"), body)


@pytest.fixture
def page(browser: Chrome, stage: Stage) -> Iterator[Chrome]:
    """The browser, logged in, downloads refused, on an empty page of the server's own."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "deny"})
    browser.get(f"{stage.url}tree?token={TOKEN}")
    browser.get(f"{stage.own}host.html")
    stage.listener.forget()
    yield browser
    _close_others(browser, browser.window_handles[0])
    browser.get("about:blank")
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "default"})


def _close_others(browser: Chrome, kept: str) -> None:
    for handle in browser.window_handles:
        if handle != kept:
            browser.switch_to.window(handle)
            browser.close()
    browser.switch_to.window(kept)


def _wait(browser: Chrome, condition: Callable[[], object], what: str) -> None:
    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: condition(), what)


def by_address_bar(browser: Chrome, url: str) -> None:
    browser.get(url)
    assert "/static/" in url or browser.title != "ran"


def by_window(browser: Chrome, url: str) -> None:
    browser.execute_script("window.open(arguments[0])", url)


def by_frame(browser: Chrome, url: str) -> None:
    _append(browser, "iframe", "src", url)


def by_object(browser: Chrome, url: str) -> None:
    _append(browser, "object", "data", url)


def by_embed(browser: Chrome, url: str) -> None:
    _append(browser, "embed", "src", url)


def by_script(browser: Chrome, url: str) -> None:
    _append(browser, "script", "src", url.replace("/static/page.html", "/static/script.js"))


def _append(browser: Chrome, tag: str, attribute: str, url: str) -> None:
    browser.execute_script(
        "const made = document.createElement(arguments[0]);"
        "made.setAttribute(arguments[1], arguments[2]); document.body.append(made)",
        tag, attribute, url,
    )  # fmt: skip


@pytest.mark.parametrize("entrance", ["capability", "plain"])
@pytest.mark.parametrize(
    "way", [by_address_bar, by_window, by_frame, by_object, by_embed, by_script]
)
def test_no_script_runs_as_the_server(
    page: Chrome, stage: Stage, way: Callable[[Chrome, str], None], entrance: str
) -> None:
    # Chromium knows without asking that it cannot embed a .bin.
    embedded = way in (by_object, by_embed)
    addresses = [a for a in stage.addresses(entrance) if not (embedded and a.endswith(".bin"))]
    before = stage.answered()
    for address in addresses:
        way(page, address)
    _wait(page, lambda: stage.answered() >= before + len(addresses), "an answer to each request")
    way(page, f"{stage.own}page.html")
    _wait(page, lambda: "api-200" in stage.listener.of(CONTROL), "word of the control")
    assert stage.listener.names() == {CONTROL}
    assert stage.callers() == {CONTROL}
    if way is not by_address_bar:
        assert page.current_url == f"{stage.own}host.html"
        assert "attacker" not in page.execute_script("return document.cookie")


def test_the_script_of_these_tests_does_harm_where_it_runs(page: Chrome, stage: Stage) -> None:
    by_window(page, f"{stage.own}page.html")
    done = {"ran", "api-200", "cookie", "opener", "service-worker"}
    _wait(page, lambda: done <= stage.listener.of(CONTROL), "all that the script does")
    assert page.title == "ran"


@pytest.mark.parametrize(
    "load",
    [
        "import(url)",
        "navigator.serviceWorker.register(url)",
        "new Promise((done, failed) => {"
        " const worker = new Worker(url); worker.onmessage = done; worker.onerror = failed })",
    ],
)
def test_no_worker_or_module_is_made_of_content(page: Chrome, stage: Stage, load: str) -> None:
    script = (
        f"const [url, told] = arguments;({load}).then(() => told('loaded'), () => told('refused'))"
    )
    for entrance in stage.entrances:
        for url in stage.addresses(entrance):
            if url.endswith((".js", ".mjs")):
                assert page.execute_async_script(script, url) == "refused", url
    assert stage.listener.names() == set()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("entrance", ["capability", "plain"])
def test_every_answer_says_how_little_it_may(stage: Stage, entrance: str, method: str) -> None:
    login = {"Authorization": f"token {TOKEN}"} if entrance == "plain" else {}
    wrong = []
    for url in stage.addresses(entrance):
        answer = requests.request(method, url, headers=login, allow_redirects=False, timeout=60)
        wrong += [f"{url}: {answer.status_code}: {what}" for what in _weaknesses(answer.headers)]
    assert not wrong, "\n".join(wrong)


def _weaknesses(headers: Mapping[str, str]) -> Iterator[str]:
    """What a browser could make use of in an answer with these headers."""
    for name, value in SANDBOX.items():
        if headers.get(name) != value:
            yield f"{name}: {headers.get(name)}"
    kind = headers.get("Content-Type", "")
    if not SAFE_TYPES.match(kind):
        yield f"Content-Type: {kind}"
    if not SHOWN_TYPES.match(kind):
        manner = headers.get("Content-Disposition", "")
        if not manner.startswith("attachment"):
            yield f"{kind} with Content-Disposition: {manner}"
    for name in map(str.lower, headers):
        if name in WEAK or name.startswith("access-control-"):
            yield name


def test_the_files_can_still_be_downloaded(stage: Stage) -> None:
    for distribution in ("hf/spaces/org/hostile", "hf/org/hostile", "hostile/org/evil"):
        url = f"{stage.entrances['capability']}{distribution}/resolve/main/image.svg"
        answer = requests.get(url, timeout=60)
        deadline = time.monotonic() + 60
        while answer.status_code == 429 and time.monotonic() < deadline:
            # It said so itself a moment ago, and is spared for a while.
            time.sleep(0.2)
            answer = requests.get(url, timeout=60)
        assert answer.status_code == 200
        assert answer.content.startswith(b"<svg ")
        assert "image.svg" in answer.headers["Content-Disposition"]
