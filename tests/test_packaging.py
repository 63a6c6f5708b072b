"""The package as its users get it: built once, then installed without Node.js."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent
FRONT_END = "jupyter_hf_cache/labextension/static/style.js"
INSTALLED = "jupyter_hf_cache-{version}.data/data/"


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return all it printed; what it printed is in the failure if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def build(source: Path, target: Path, kind: str, **environ: str) -> Path:
    """Build an sdist or a wheel with the tools of this environment; return the file."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", target]
    run(*command, source, env=environ)
    (built,) = target.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def traps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of commands named like Node.js's that leave a trace when somebody runs them."""
    folder = tmp_path_factory.mktemp("traps")
    for name in ("node", "npm", "npx", "jlpm", "yarn"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{folder}/trace"\nexit 1\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def wheel(sdist: Path, traps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the unpacked sdist on a machine whose Node.js does not work."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        if sys.version_info >= (3, 12):
            archive.extractall(folder, filter="data")
        else:
            archive.extractall(folder)  # noqa: S202 - our own archive
    (source,) = folder.iterdir()
    path = f"{traps}{os.pathsep}{os.environ['PATH']}"
    return build(source, folder / "dist", "wheel", PATH=path)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment that holds JupyterLab and the wheel."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    uv = [sys.executable, "-m", "uv"]
    run(*uv, "venv", "--quiet", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    run(*uv, "pip", "install", "--quiet", "--python", python, wheel, "jupyterlab>=4.2,<5")
    return folder / "bin"


def jupyter(bin_folder: Path, home: Path, *words: str) -> str:
    """Run `jupyter ...` of an environment with nobody's settings."""
    nowhere = {name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    env = {"HOME": str(home), "PATH": path, **nowhere}
    said = run(bin_folder / "jupyter", *words, cwd=home, env=env)
    return re.sub(r"\x1b\[\d*m", "", said)  # colours


def test_sdist_holds_the_built_front_end_and_what_builds_it(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = {FRONT_END, "package.json", "package-lock.json", "labextension/hatch_build.py"}
    assert wanted | {"labextension/src/index.ts", "LICENSE"} <= names
    assert not [name for name in names if name.startswith((".venv", "node_modules"))]


def test_building_from_the_sdist_runs_no_node(wheel: Path, traps: Path) -> None:
    assert wheel.exists()
    trace = traps / "trace"
    assert not trace.exists(), trace.read_text()


def test_wheel_holds_front_end_configuration_and_types(wheel: Path) -> None:
    data = INSTALLED.format(version=wheel.name.split("-")[1])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    extension = f"{data}share/jupyter/labextensions/jupyter-hf-cache/"
    wanted = {"package.json", "install.json", "static/style.js"}
    assert {f"{extension}{name}" for name in wanted} <= names
    assert [name for name in names if name.startswith(f"{extension}static/remoteEntry.")]
    assert f"{data}etc/jupyter/jupyter_server_config.d/jupyter_hf_cache.json" in names
    assert "jupyter_hf_cache/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "labextension/"))]


def test_server_extension_is_enabled_by_its_file_alone(installed: Path, tmp_path: Path) -> None:
    listing = jupyter(installed, tmp_path, "server", "extension", "list")
    lines = [" ".join(line.split()) for line in listing.splitlines()]
    assert "jupyter_hf_cache enabled" in lines
    assert [line for line in lines if line.startswith("jupyter_hf_cache") and line.endswith("OK")]


def test_front_end_is_listed(installed: Path, tmp_path: Path) -> None:
    listing = jupyter(installed, tmp_path, "labextension", "list")
    (line,) = [line for line in listing.splitlines() if "jupyter-hf-cache v" in line]
    assert "enabled" in line
    assert "OK" in line


def test_command_is_a_jupyter_subcommand(installed: Path, tmp_path: Path) -> None:
    assert "status" in jupyter(installed, tmp_path, "hf-cache", "--help")
    assert "hf-cache" in jupyter(installed, tmp_path, "--help")


def test_node_that_is_too_old_is_replaced_by_the_one_on_pypi() -> None:
    pytest.importorskip("hatchling")
    sys.path.insert(0, str(ROOT / "labextension"))
    try:
        import hatch_build
    finally:
        sys.path.pop(0)
    verdicts = {v: hatch_build.is_new_enough(v) for v in ("v20.18.3", "v20.19.0", "v21.7.3")}
    assert verdicts == {"v20.18.3": False, "v20.19.0": True, "v21.7.3": False}
    verdicts = {v: hatch_build.is_new_enough(v) for v in ("v22.11.0", "v22.12.0", "v24.1.0", "?")}
    assert verdicts == {"v22.11.0": False, "v22.12.0": True, "v24.1.0": True, "?": False}
