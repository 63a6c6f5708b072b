"""What may not be lost: the data directory and the key that protects what is in it.

Responsible for: opening it, for the cache and for commands that need nothing else.
Not responsible for: what is cached (`core`).
"""

from __future__ import annotations

from jupyter_hf_cache.service.options import ServiceOptions
from jupyter_hf_cache.storage.config_store import ConfigStore
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.keys import Keys
from jupyter_hf_cache.storage.layout import check_layout
from jupyter_hf_cache.storage.secrets import SecretBox, load_key
from jupyter_hf_cache.storage.state import StateTable


class Lasting:
    """The open data directory. Thread-safe; any number of processes may have it open.

    Attributes:
        secrets: the installation's key.
        generations: counters by which the processes on one directory tell each other of changes.
        tables: by name.
        config: remotes and distributions.
        keys: who may come in by a key of their own.

    Raises:
        StorageError, OSError: it cannot be opened.
    """

    def __init__(self, options: ServiceOptions) -> None:
        check_layout(options.data_dir)
        self.secrets = SecretBox(load_key(options.config_dir))
        data_state = options.data_dir / "state"
        data_state.mkdir(mode=0o700, exist_ok=True)
        durable = options.data_state_dir or data_state
        self.generations = Generations(durable / "generations")
        self.tables = {name: StateTable(durable / name) for name in ("config", "access", "usage")}
        self.config = ConfigStore(
            self.tables["config"],
            self.secrets,
            data_state / "config-copy.json",
            self.generations,
        )
        self.keys = Keys(self.tables["access"], self.generations)

    def close(self) -> None:
        """Write what is pending and close the tables."""
        self.keys.close()
        for table in self.tables.values():
            table.close()
        self.generations.close()
