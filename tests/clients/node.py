"""The JavaScript clients, in Node.js.

Responsible for: finding the packages that `.ci/test` installed, and running a module that uses them
with nothing set but what a test says.
Not responsible for: installing them, or the same packages in a browser (`tests/ui`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PRELUDE = """
import {createHash} from "node:crypto";
const hubUrl = process.env.HF_ENDPOINT;
const accessToken = process.env.HF_TOKEN || undefined;
const bytes = async (blob) => Buffer.from(await blob.arrayBuffer());
const sha256 = (data) => createHash("sha256").update(data).digest("hex");
const tell = (result) => console.log("RESULT" + JSON.stringify(result));
async function refusal(call) {
  try { await call(); } catch (error) { return [error.constructor.name, error.statusCode ?? null]; }
  return [];
}
"""
HUB = 'import * as hub from "@huggingface/hub";\n'
TRANSFORMERS = 'import * as transformers from "@huggingface/transformers";\n'


def modules() -> Path:
    """The folder of the installed packages; the test is skipped where it or Node.js is missing."""
    folder = Path(os.environ.get("HF_CACHE_TEST_CLIENTS", ""), "js", "node_modules")
    if not folder.is_dir():
        pytest.skip("group clients: there is no environment js")
    if not shutil.which("node"):
        pytest.skip("group clients: not installed: node")
    return folder


def run(script: str, home: Path, endpoint: str, **environ: str) -> Any:
    """Run an ES module; what it `tell`s.

    Args:
        script: begins with the imports it needs, `HUB` or `TRANSFORMERS`.
        home: HOME, and where it runs.
        endpoint: HF_ENDPOINT, which the prelude takes for `hubUrl`.

    Raises:
        AssertionError: it failed; the message is what it said.
    """
    home.mkdir(parents=True, exist_ok=True)
    link = home / "node_modules"
    if not link.exists():
        link.symlink_to(modules())
    file = home / "script.mjs"
    file.write_text(script.partition("\n")[0] + PRELUDE + script.partition("\n")[2])
    variables = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "HF_ENDPOINT": endpoint}
    done = subprocess.run(
        ["node", str(file)],
        env={**variables, "NO_PROXY": "*", **environ},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    line = next(row for row in done.stdout.splitlines() if row.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))
