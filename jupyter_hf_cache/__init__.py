"""A Hugging Face cache for Jupyter.

Responsible for: the names by which Jupyter and IPython find this package. Every kernel that loads
the magics imports this file, so it imports nothing by itself.
Not responsible for: anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from jupyter_hf_cache.widget import CachePanel

__all__ = ["CachePanel", "__version__"]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from jupyter_hf_cache.app import HfCacheApp

    return [{"module": "jupyter_hf_cache", "app": HfCacheApp}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "jupyter-hf-cache"}]


def load_ipython_extension(ip: InteractiveShell) -> None:
    """`%load_ext jupyter_hf_cache`."""
    from jupyter_hf_cache import magics

    magics.load_ipython_extension(ip)


def unload_ipython_extension(ip: InteractiveShell) -> None:
    """`%unload_ext jupyter_hf_cache`."""
    from jupyter_hf_cache import magics

    magics.unload_ipython_extension(ip)


def __getattr__(name: str) -> Any:
    if name == "CachePanel":
        from jupyter_hf_cache.widget import CachePanel

        return CachePanel
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("jupyter-hf-cache")
        except PackageNotFoundError:
            # A checkout on the path, not installed.
            return "0+source"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
