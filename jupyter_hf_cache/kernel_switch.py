"""Turning the cache on and off inside a process that is already running.

Responsible for: HF_ENDPOINT and its companions in this process, and every copy of the endpoint that
already imported Hugging Face libraries hold; putting all of it back.
Not responsible for: which endpoint (`client`), or for processes started earlier.

huggingface_hub reads HF_ENDPOINT once, when it is imported, and the value spreads from there:
`constants.ENDPOINT`, the URL template built from it, the set of trusted hosts (1.x and later),
`from constants import ENDPOINT` in single modules, the `endpoint` of the module's own `HfApi` and
`HfFileSystem`, and instances that fsspec remembers. datasets, evaluate, diffusers and older
transformers keep a copy of their own. Names and values are both looked at, so that a constant which
means the public Hub whatever the endpoint (`_HF_DEFAULT_ENDPOINT`) is left alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from .environment import ENDPOINT, OWN_UPSTREAM, OWN_URL, inherited_upstream, with_host

PUBLIC_HUB = "https://huggingface.co"

_PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_LIBRARIES = (
    "huggingface_hub",
    "datasets",
    "transformers",
    "evaluate",
    "diffusers",
    "sentence_transformers",
)
_COPIES = (
    "ENDPOINT",
    "HF_ENDPOINT",
    "HUGGINGFACE_CO_URL_TEMPLATE",
    "HUGGINGFACE_CO_RESOLVE_ENDPOINT",
    "HUGGINGFACE_CO_PREFIX",
    "HUB_DATASETS_URL",
    "HUB_EVALUATE_URL",
)
_Undo = Callable[[], None]


@dataclass(slots=True)
class SwitchReport:
    """What a switch changed and what it could not reach.

    Args:
        endpoint: the endpoint that is in force now.
        patched: names of the imported libraries whose copies were changed.
        left: sentences about what keeps the old endpoint.
    """

    endpoint: str
    patched: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class KernelSwitch:
    """The cache on or off for one process. Not thread-safe: for the thread that runs the cells.

    Args:
        environ: the environment to change.
        modules: the imported modules, `sys.modules`.
    """

    def __init__(
        self,
        environ: MutableMapping[str, str] | None = None,
        modules: MutableMapping[str, ModuleType] | None = None,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._modules = sys.modules if modules is None else modules
        self._undo: list[_Undo] = []

    @property
    def on(self) -> bool:
        """Whether `use` is in force."""
        return bool(self._undo)

    def use(self, endpoint: str) -> SwitchReport:
        """Send this process's Hugging Face traffic to `endpoint`, whatever was in force before."""
        if self.on:
            self.off()
        endpoint = endpoint.rstrip("/")
        old = self._endpoints_in_force()
        self._set_variables(endpoint)
        return self._patch_libraries(old, endpoint)

    def off(self) -> SwitchReport:
        """Put everything back as it was before the first `use`.

        A kernel that got the cache at its start is pointed at the Hub that the user had chosen
        before Jupyter started, else at the public one.
        """
        if not self.on:
            return self._leave_inherited()
        seen = self._endpoints_in_force()
        while self._undo:
            self._undo.pop()()
        endpoint = self._environ.get(ENDPOINT, PUBLIC_HUB).rstrip("/")
        # Libraries that were imported since `use` were born with the cache's endpoint.
        report = self._patch_libraries(seen - {endpoint}, endpoint)
        self._undo.clear()
        return report

    def _leave_inherited(self) -> SwitchReport:
        current = self._environ.get(ENDPOINT, "")
        if not is_cache_endpoint(current, self._environ):
            return SwitchReport(current or PUBLIC_HUB)
        seen = self._endpoints_in_force()
        own = inherited_upstream(self._environ)
        for name in (ENDPOINT, OWN_URL, OWN_UPSTREAM):
            self._environ.pop(name, None)
        if own:
            self._environ[ENDPOINT] = own
        report = self._patch_libraries(seen - {own or PUBLIC_HUB}, own or PUBLIC_HUB)
        self._undo.clear()
        return report

    def _endpoints_in_force(self) -> set[str]:
        """Every spelling of the endpoint that a library may have copied."""
        found = {self._environ.get(ENDPOINT, PUBLIC_HUB)}
        for name, attribute in (
            ("huggingface_hub.constants", "ENDPOINT"),
            ("datasets.config", "HF_ENDPOINT"),
            ("evaluate.config", "HF_ENDPOINT"),
        ):
            value = vars(self._modules[name]).get(attribute) if name in self._modules else None
            if isinstance(value, str):
                found.add(value)
        return {value for spelling in found for value in (spelling, spelling.rstrip("/"))}

    def _set_variables(self, endpoint: str) -> None:
        for name, value in variables(endpoint, self._environ).items():
            self._set_variable(name, value)

    def _set_variable(self, name: str, value: str) -> None:
        before = self._environ.get(name)
        self._environ[name] = value

        def undo() -> None:
            if before is None:
                self._environ.pop(name, None)
            else:
                self._environ[name] = before

        self._undo.append(undo)

    def _patch_libraries(self, old: set[str], endpoint: str) -> SwitchReport:
        report = SwitchReport(endpoint)
        patched = set()
        for library, module in self._library_modules():
            if self._patch_module(module, old, endpoint):
                patched.add(library)
        if "huggingface_hub" in self._modules:
            self._patch_instances(old, endpoint)
            self._forget_file_systems()
            self._renew_connections()
            report.left.extend(self._older_objects(old - {endpoint}))
        report.patched = sorted(patched)
        return report

    def _library_modules(self) -> Iterator[tuple[str, ModuleType]]:
        for name, module in list(self._modules.items()):
            library = name.partition(".")[0]
            if library in _LIBRARIES and isinstance(module, ModuleType):
                yield library, module

    def _patch_module(self, module: ModuleType, old: set[str], endpoint: str) -> bool:
        # vars(), not getattr: these packages import their sub-modules when an attribute is read.
        names = vars(module)
        changed = False
        for name in _COPIES:
            value = names.get(name)
            renewed = _renewed(value, old, endpoint) if isinstance(value, str) else None
            if renewed is not None:
                self._set_attribute(module, name, renewed)
                changed = True
        hosts, host = names.get("HF_URL_HOSTS"), urlsplit(endpoint).hostname
        if changed and isinstance(hosts, frozenset) and host and host not in hosts:
            self._set_attribute(module, "HF_URL_HOSTS", hosts | {host})
        return changed

    def _patch_instances(self, old: set[str], endpoint: str) -> None:
        """The objects that huggingface_hub itself made at import and uses for its functions."""
        for owner in self._own_instances():
            if getattr(owner, "endpoint", None) in old:
                self._set_attribute(owner, "endpoint", endpoint)

    def _own_instances(self) -> Iterator[Any]:
        api = _member(self._modules.get("huggingface_hub.hf_api"), "api")
        system = _member(self._modules.get("huggingface_hub.hf_file_system"), "hffs")
        yield from (found for found in (api, system) if found is not None)
        inner = getattr(system, "_api", None)
        if inner is not None:
            yield inner

    def _set_attribute(self, owner: Any, name: str, value: Any) -> None:
        before = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.append(lambda: setattr(owner, name, before))

    def _forget_file_systems(self) -> None:
        """fsspec hands out one HfFileSystem again and again; before 1.0 whatever the endpoint."""
        module = self._modules.get("huggingface_hub.hf_file_system")
        forget = getattr(_member(module, "HfFileSystem"), "clear_instance_cache", None)
        if callable(forget):
            forget()

    def _renew_connections(self) -> None:
        """Make the shared HTTP client read NO_PROXY again.

        httpx fixes the proxies when the client is made. Only where a proxy is set, because a
        download in another thread would lose its connection.
        """
        if not any(self._environ.get(name) for name in _PROXIES):
            return
        module = self._modules.get("huggingface_hub.utils._http")
        for name in ("close_session", "reset_sessions"):
            renew = _member(module, name)
            if callable(renew):
                renew()
                return

    def _older_objects(self, old: set[str]) -> list[str]:
        """A sentence about each kind of object the user made earlier and may rely on."""
        import gc

        kinds = {
            "HfApi": _member(self._modules.get("huggingface_hub.hf_api"), "HfApi"),
            "HfFileSystem": _member(
                self._modules.get("huggingface_hub.hf_file_system"), "HfFileSystem"
            ),
        }
        wanted = {kind: name for name, kind in kinds.items() if isinstance(kind, type)}
        things = [thing for thing in gc.get_objects() if type(thing) in wanted]
        # The HfApi inside an HfFileSystem is not the user's to make again.
        inner = {id(getattr(thing, "_api", None)) for thing in things}
        own = inner | {id(instance) for instance in self._own_instances()}
        found: dict[str, int] = {}
        for thing in things:
            if id(thing) not in own and getattr(thing, "endpoint", None) in old:
                name = wanted[type(thing)]
                found[name] = found.get(name, 0) + 1
        return [
            f"{number} {name} object{'s' if number > 1 else ''} made earlier"
            f" keep{'' if number > 1 else 's'} the old endpoint; make {name}() again."
            for name, number in sorted(found.items())
        ]


def _member(module: ModuleType | None, name: str) -> Any:
    return vars(module).get(name) if module is not None else None


def _renewed(value: str, old: set[str], endpoint: str) -> str | None:
    """`value` with the old endpoint at its start replaced; None when it does not start with one."""
    for spelling in sorted(old, key=len, reverse=True):
        if value == spelling:
            return endpoint
        if value.startswith(spelling.rstrip("/") + "/"):
            return endpoint + value[len(spelling.rstrip("/")) :]
    return None


def variables(endpoint: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that send a process's Hugging Face traffic to `endpoint`.

    Args:
        environ: what is there now: its NO_PROXY is kept, and the user's own HF_ENDPOINT is noted
            for those who must know the real upstream.
    """
    host = urlsplit(endpoint).hostname or ""
    # Each spelling starts from what is there under either: a library that finds one does not look
    # for the other.
    upper, lower = environ.get("NO_PROXY", ""), environ.get("no_proxy", "")
    wanted = {
        ENDPOINT: endpoint,
        OWN_URL: endpoint,
        "NO_PROXY": with_host(upper or lower, host),
        "no_proxy": with_host(lower or upper, host),
    }
    own = inherited_upstream(environ)
    return {**wanted, OWN_UPSTREAM: own} if own else wanted


def kernel_state(
    server_url: str = "",
    environ: Mapping[str, str] | None = None,
    modules: Mapping[str, ModuleType] | None = None,
) -> str:
    """Whether this process uses the cache: `on`, or `off` with the reason and the next step.

    Args:
        server_url: the cache server's base URL; an endpoint below it counts as the cache.
    """
    environ = os.environ if environ is None else environ
    modules = sys.modules if modules is None else modules
    wanted = environ.get(ENDPOINT, "")
    read = _member(modules.get("huggingface_hub.constants"), "ENDPOINT")
    if is_cache_endpoint(read if isinstance(read, str) else wanted, environ, server_url):
        return "on"
    if is_cache_endpoint(wanted, environ, server_url):
        return "off (huggingface_hub was imported before; run %hf_cache use)"
    if wanted:
        return f"off (own HF_ENDPOINT {redacted(wanted)}; %hf_cache use replaces it)"
    return "off (%hf_cache use turns it on)"


def redacted(endpoint: str) -> str:
    """An endpoint without the parts that open it: user, password and capability."""
    parts = urlsplit(endpoint)
    netloc = parts.netloc.rpartition("@")[2]
    path = "/".join("~…" if s.startswith("~") else s for s in parts.path.split("/"))
    return f"{parts.scheme}://{netloc}{path}"


def is_cache_endpoint(endpoint: str, environ: Mapping[str, str], server_url: str = "") -> bool:
    """Whether an endpoint is the cache's: put there by it, or below the given server."""
    if not endpoint:
        return False
    own = environ.get(OWN_URL, "")
    below = f"{server_url}pulp/content/" if server_url else ""
    return endpoint.rstrip("/") == own.rstrip("/") or (bool(below) and endpoint.startswith(below))


PROCESS = KernelSwitch()
"""The switch of this process; shared, so that `off` still knows the past after a reload."""
