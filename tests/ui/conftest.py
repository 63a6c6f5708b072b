"""JupyterLab and a browser in front of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import lab as jupyterlab
import pytest
from fake_hub import FakeHub
from lab import Lab
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage "
    "--window-size=1280,860 --force-device-scale-factor=1"
)


@pytest.fixture(scope="session")
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as running:
        yield running


@pytest.fixture(scope="session")
def start_lab(
    hub: FakeHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Lab]]:
    """Start JupyterLab with more options; all of them are stopped at the end of the run."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> Lab:
        lab, process = jupyterlab.start(tmp_path_factory.mktemp("lab"), hub, *options)
        running.append(process)
        return lab

    yield start
    for process in running:
        process.terminate()
    for process in running:
        process.wait(30)


@pytest.fixture(scope="session")
def lab(start_lab: Callable[..., Lab]) -> Lab:
    """JupyterLab as its users have it."""
    return start_lab()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A headless Chromium with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    yield driver
    driver.quit()


@pytest.fixture
def screenshot(browser: webdriver.Chrome, tmp_path: Path) -> Callable[[str], Path]:
    """Take a picture, into $HF_CACHE_TEST_SCREENSHOTS where that is set."""

    def take(name: str) -> Path:
        folder = Path(os.environ.get("HF_CACHE_TEST_SCREENSHOTS") or tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        assert browser.save_screenshot(str(folder / f"{name}.png"))
        return folder / f"{name}.png"

    return take
