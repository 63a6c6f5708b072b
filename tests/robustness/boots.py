"""The machine, seemingly started again.

Responsible for: letting this process see another boot than the one that files name.
Not responsible for: what a boot's end loses (`power`).
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock


@contextmanager
def another_boot() -> Iterator[None]:
    """While this is entered, the machine has another boot id, for every module that asks."""
    name = str(uuid.uuid4()).encode()
    modules = [
        module
        for key, module in sorted(sys.modules.items())
        if key.startswith("jupyter_hf_cache.") and hasattr(module, "boot_id")
    ]
    assert modules
    with ExitStack() as patches:
        for module in modules:
            patches.enter_context(mock.patch.object(module, "boot_id", lambda: name))
        yield
