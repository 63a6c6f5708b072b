"""The status item of JupyterLab, as a person meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ITEM = ".jp-HfCacheStatus-button"
POPUP = ".jp-HfCachePopup"
DOWNLOAD = """\
import os, urllib.request
url = os.environ["HF_ENDPOINT"] + "/hf-internal-testing/tiny-random-bert/resolve/main/config.json"
print("type", "bert" in urllib.request.urlopen(url).read().decode())"""


class Page:
    """JupyterLab in the browser."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def open(self, url: str) -> None:
        """Open a notebook and wait until its kernel is idle."""
        self.browser.get("about:blank")  # else a second notebook would only change the address
        self.browser.get(url)
        self.wait(lambda: "| Idle" in self.text("#jp-bottom-panel, #jp-main-statusbar"))

    def wait(self, condition: Callable[[], object], seconds: float = 60) -> None:
        moving = [NoSuchElementException, StaleElementReferenceException]
        WebDriverWait(self.browser, seconds, ignored_exceptions=moving).until(lambda _: condition())

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return " ".join(element.text for element in self.all(selector))

    def run_cell(self, number: int, output: str) -> None:
        """Run a cell with the keyboard and wait for what it prints."""
        cell = self.all(".jp-Notebook .jp-CodeCell")[number]
        cell.find_element(By.CSS_SELECTOR, ".cm-content").click()
        ActionChains(self.browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(
            Keys.CONTROL
        ).perform()
        self.wait(lambda: output in cell.find_element(By.CSS_SELECTOR, ".jp-Cell-outputArea").text)

    def open_popup(self) -> None:
        self.one(ITEM).click()
        self.wait(lambda: "Asking" not in self.text(POPUP) and self.text(POPUP))

    def button(self, label: str) -> WebElement:
        (found,) = [each for each in self.all(f"{POPUP} button") if each.text == label]
        return found


@pytest.fixture
def page(browser: Chrome) -> Page:
    return Page(browser)


def test_a_notebook_that_uses_the_cache_says_so(
    lab: Lab, page: Page, screenshot: Callable[[str], Path]
) -> None:
    page.open(lab.notebook("uses.ipynb", DOWNLOAD))
    page.run_cell(0, "type True")
    page.wait(lambda: page.text(ITEM).startswith("HF cache: "))
    page.open_popup()
    page.wait(lambda: "On: this notebook downloads through the cache." in page.text(POPUP))
    page.wait(lambda: "in 1 repo" in page.text(POPUP))
    assert "/user/a%40b/pulp/content/hf" in page.text(f"{POPUP} code")
    assert "~" not in page.text(POPUP), "the access key is not to be read over a shoulder"
    screenshot("status-bar")


def test_the_endpoint_can_be_copied_with_and_without_its_access_key(lab: Lab, page: Page) -> None:
    page.open(lab.notebook("copies.ipynb", "1 + 1"))
    page.open_popup()
    page.wait(lambda: "Endpoint" in page.text(POPUP))

    def copied() -> str:
        return str(
            page.browser.execute_async_script(
                "navigator.clipboard.readText().then(arguments[arguments.length - 1])"
            )
        )

    page.button("Copy endpoint").click()
    page.wait(lambda: "Endpoint copied." in page.text(POPUP))
    plain = copied()
    assert plain.endswith("/user/a%40b/pulp/content/hf")
    page.button("Copy with access key").click()
    page.wait(lambda: "Treat it like a password." in page.text(POPUP))
    assert "/user/a%40b/pulp/content/~" in copied()


def test_a_notebook_with_its_own_endpoint_is_told_apart(lab: Lab, page: Page) -> None:
    own = 'import os; os.environ["HF_ENDPOINT"] = "https://own.example"; print("set")'
    page.open(lab.notebook("own.ipynb", own))
    page.run_cell(0, "set")
    page.open_popup()
    page.wait(lambda: "Off: the kernel has its own HF_ENDPOINT." in page.text(POPUP))
    page.wait(lambda: "off here" in page.text(ITEM))


def test_a_kernel_from_before_the_cache_is_told_to_restart(lab: Lab, page: Page) -> None:
    before = 'import os; [os.environ.pop(n) for n in list(os.environ) if "HF_" in n]; print("gone")'
    page.open(lab.notebook("before.ipynb", before))
    page.run_cell(0, "gone")
    page.open_popup()
    page.wait(lambda: "Restart the kernel to use the cache." in page.text(POPUP))
    page.wait(lambda: "restart kernel" in page.text(ITEM))
    page.button("Restart kernel…").click()
    page.wait(lambda: page.all(".jp-Dialog button.jp-mod-accept"))
    page.one(".jp-Dialog button.jp-mod-accept").click()
    page.wait(lambda: "restart kernel" not in page.text(ITEM))


def test_the_popup_works_with_the_keyboard_alone(lab: Lab, page: Page) -> None:
    page.open(lab.notebook("keys.ipynb", "1 + 1"))
    page.wait(lambda: page.text(ITEM).startswith("HF cache: "))
    assert "Open details" in str(page.one(ITEM).get_attribute("aria-label"))
    page.one(ITEM).send_keys(Keys.ENTER)
    page.wait(lambda: page.all(POPUP))
    assert page.browser.switch_to.active_element == page.one(POPUP)
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.wait(lambda: not page.all(POPUP))
    assert page.browser.switch_to.active_element == page.one(ITEM)


def test_new_kernels_can_be_switched_off_and_on(lab: Lab, page: Page) -> None:
    page.open(lab.notebook("switch.ipynb", "1 + 1"))
    page.open_popup()
    page.wait(lambda: page.all(f"{POPUP} input"))
    assert page.one(f"{POPUP} input").is_selected()
    page.one(f"{POPUP} input").click()
    page.wait(lambda: not page.one(f"{POPUP} input").is_selected())

    page.open(lab.notebook("off.ipynb", 'import os; print(os.environ.get("JUPYTER_HF_CACHE_URL"))'))
    page.run_cell(0, "None")
    page.open_popup()
    page.wait(lambda: page.all(f"{POPUP} input"))
    page.one(f"{POPUP} input").click()
    page.wait(lambda: page.one(f"{POPUP} input").is_selected())


def test_a_server_without_the_cache_is_told_apart(
    start_lab: Callable[..., Lab], page: Page
) -> None:
    lab = start_lab("--ServerApp.jpserver_extensions={'jupyter_hf_cache': False}")
    page.open(lab.notebook("without.ipynb", "1 + 1"))
    page.wait(lambda: page.text(ITEM) == "HF cache: not running")
    page.open_popup()
    assert "The cache is not running on this Jupyter server." in page.text(POPUP)
    assert "jupyter server extension list" in page.text(POPUP)
