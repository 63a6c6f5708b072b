"""The widget panel in a notebook, as a person meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

DOWNLOAD = """\
import os, urllib.request
for name in ("config.json", "model.safetensors", "vocab.txt"):
    path = "/hf-internal-testing/tiny-random-bert/resolve/main/" + name
    urllib.request.urlopen(os.environ["HF_ENDPOINT"] + path).read()
from jupyter_hf_cache import CachePanel
CachePanel()"""


def test_the_panel_shows_what_is_kept(
    lab: Lab, browser: Chrome, screenshot: Callable[[str], Path]
) -> None:
    browser.get("about:blank")
    browser.get(lab.notebook("panel.ipynb", DOWNLOAD))

    def text(selector: str) -> str:
        return " ".join(one.text for one in browser.find_elements(By.CSS_SELECTOR, selector))

    def wait(condition: Callable[[], object]) -> None:
        WebDriverWait(browser, 90).until(lambda _: condition())

    wait(lambda: "| Idle" in text("#jp-bottom-panel, #jp-main-statusbar"))
    browser.find_element(By.CSS_SELECTOR, ".jp-Notebook .cm-content").click()
    browser.find_element(
        By.CSS_SELECTOR, 'jp-button[data-command="notebook:run-cell-and-select-next"]'
    ).click()
    wait(lambda: "hf-internal-testing/tiny-random-bert" in text(".jp-OutputArea-output"))
    shown = text(".jp-OutputArea-output")
    assert "Hub" in shown
    (password,) = browser.find_elements(
        By.CSS_SELECTOR, ".jp-OutputArea-output input[type=password]"
    )
    assert password.get_attribute("value") == ""
    screenshot("panel")
