"""Which part may know which: the layers of the design, held by tests."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import jupyter_hf_cache

PACKAGE = "jupyter_hf_cache"
ROOT = Path(jupyter_hf_cache.__file__).parent

# What a layer may import of this package, besides itself.
MAY_KNOW = {
    "errors": set(),
    "protocol": {"errors", "storage.records"},
    "storage": {"errors", "protocol"},
    "upstream": {"errors", "protocol", "storage"},
    "answers": {"errors", "protocol", "storage", "upstream"},
    "service": {"errors", "protocol", "storage", "upstream", "answers", "__version__"},
    "web": {
        "errors",
        "protocol",
        "storage",
        "upstream",
        "answers",
        "service",
        "__version__",
        "environment.Injection",  # as a type
    },
}
CORE = [
    *(f"{PACKAGE}.{layer}" for layer in ("errors", "answers")),
    *(
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        for layer in ("protocol", "storage", "upstream", "service")
        for path in sorted((ROOT / layer).rglob("*.py"))
    ),
]
WEB = [f"{PACKAGE}.web.{path.stem}" for path in sorted((ROOT / "web").glob("*.py"))]
CLIENTS = [f"{PACKAGE}.{name}" for name in ("client", "cli", "magics", "widget")]
SERVER = ("tornado", "jupyter_server", "jupyterhub", "jupyterlab", "notebook")
STORES = ("diskcache", "filelock", "cryptography")
APPS = ("app", "standalone", "server", "worker", "workers", "key_commands", "config")
SERVER_PARTS = tuple(f"{PACKAGE}.{name}" for name in (*MAY_KNOW, *APPS))


def modules_of(layer: str) -> list[Path]:
    folder = ROOT / layer
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{layer}.py"]


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, at whatever depth."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            found += [(node.lineno, f"{node.module}.{name.name}") for name in node.names]
    return found


@pytest.mark.parametrize("layer", MAY_KNOW)
def test_no_layer_knows_one_above_it(layer: str) -> None:
    allowed = MAY_KNOW[layer] | {layer}
    climbing = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules_of(layer)
        for line, name in imports_of(path)
        if name.startswith(f"{PACKAGE}.")
        and not any(f"{name}.".startswith(f"{PACKAGE}.{known}.") for known in allowed)
    ]
    assert climbing == []


def test_every_module_of_a_layer_was_looked_at() -> None:
    assert len(CORE) > 40
    assert all(modules_of(layer) for layer in MAY_KNOW)


@pytest.mark.parametrize("layer", ["protocol", "storage", "upstream", "service"])
def test_no_module_needs_posix_to_be_imported(layer: str) -> None:
    posix = ("fcntl", "pwd", "grp", "resource", "termios")
    at_top = [
        f"{path.name}:{node.lineno}"
        for path in modules_of(layer)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import)
        for name in node.names
        if name.name in posix
    ]
    assert at_top == []


def import_without(modules: list[str], refused: tuple[str, ...]) -> str:
    """Import `modules` in a fresh process where `refused` do not exist; what went wrong."""
    code = """
        import importlib, sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                for refused in sys.argv[1].split(","):
                    if name == refused or name.startswith(refused + "."):
                        raise ImportError(f"{name} is refused here")
                return None

        sys.meta_path.insert(0, Refuse())
        for name in sys.argv[2:]:
            try:
                importlib.import_module(name)
            except ImportError as error:
                print(f"{name}: {error}")
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), ",".join(refused), *modules],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_refusing_works() -> None:
    assert "refused" in import_without([f"{PACKAGE}.web.handler"], SERVER)


def test_the_core_runs_without_any_web_framework() -> None:
    assert import_without(CORE, SERVER) == ""


def test_protocol_runs_without_the_network_and_the_store() -> None:
    protocol = [name for name in CORE if name.startswith(f"{PACKAGE}.protocol")]
    assert import_without(protocol, (*SERVER, *STORES, "requests", "urllib3", "traitlets")) == ""


def test_the_web_part_runs_without_jupyter() -> None:
    refused = ("jupyter_server", "jupyterhub", "jupyterlab", "notebook")
    assert import_without(WEB, refused) == ""


def test_clients_run_where_no_server_part_is() -> None:
    refused = tuple(part for part in SERVER_PARTS if part != f"{PACKAGE}.errors")
    assert import_without(CLIENTS, (*SERVER, *STORES, *refused)) == ""
