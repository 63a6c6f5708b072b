"""The cache on and off in a running process, with libraries imported before and after."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from jupyter_hf_cache.kernel_switch import (
    PUBLIC_HUB,
    KernelSwitch,
    is_cache_endpoint,
    kernel_state,
    redacted,
    variables,
)

CACHE = "http://127.0.0.1:8888/pulp/content/~cap/hf"
MIRROR = "https://mirror.example"
TEMPLATE = "/{repo_id}/resolve/{revision}/{filename}"


def module(name: str, **members: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(members)
    return made


def hub(endpoint: str = PUBLIC_HUB) -> dict[str, ModuleType]:
    """The modules of a huggingface_hub whose import read `endpoint`."""

    class HfApi:
        def __init__(self, endpoint: str = endpoint) -> None:
            self.endpoint = endpoint

    class HfFileSystem:
        cleared = 0

        def __init__(self, endpoint: str = endpoint) -> None:
            self.endpoint = endpoint
            self._api = HfApi(endpoint)

        @classmethod
        def clear_instance_cache(cls) -> None:
            cls.cleared += 1

    made = [
        module("huggingface_hub"),
        module(
            "huggingface_hub.constants",
            ENDPOINT=endpoint,
            HUGGINGFACE_CO_URL_TEMPLATE=endpoint + TEMPLATE,
            HUGGINGFACE_CO_URL_HOME="https://huggingface.co/",
            _HF_DEFAULT_ENDPOINT=PUBLIC_HUB,
            HF_URL_HOSTS=frozenset({"hf.co"}),
        ),
        module("huggingface_hub.file_download", HUGGINGFACE_CO_URL_TEMPLATE=endpoint + TEMPLATE),
        module("huggingface_hub.hf_api", HfApi=HfApi, api=HfApi()),
        module("huggingface_hub.hf_file_system", HfFileSystem=HfFileSystem, hffs=HfFileSystem()),
        module("datasets"),
        module(
            "datasets.config",
            HF_ENDPOINT=endpoint + "/",
            HUB_DATASETS_URL=endpoint + "/datasets/{repo_id}",
            S3_DATASETS_BUCKET_PREFIX="https://s3.amazonaws.com/",
        ),
        module("unrelated", ENDPOINT=endpoint),
    ]
    return {m.__name__: m for m in made}


def test_use_sets_the_environment_and_off_restores_it() -> None:
    before = {"HF_ENDPOINT": "https://mirror.example", "NO_PROXY": "a.example"}
    environ = dict(before)
    switch = KernelSwitch(environ, {})
    switch.use(CACHE + "/")
    assert switch.on
    assert environ == {
        "HF_ENDPOINT": CACHE,
        "JUPYTER_HF_CACHE_URL": CACHE,
        "JUPYTER_HF_CACHE_UPSTREAM": "https://mirror.example",
        "NO_PROXY": "a.example,127.0.0.1",
        "no_proxy": "a.example,127.0.0.1",
    }
    assert switch.off().endpoint == "https://mirror.example"
    assert environ == before
    assert not switch.on


def test_use_reaches_what_imported_libraries_copied() -> None:
    modules = hub()
    report = KernelSwitch({}, modules).use(CACHE)
    constants = modules["huggingface_hub.constants"]
    assert constants.ENDPOINT == CACHE
    assert constants.HUGGINGFACE_CO_URL_TEMPLATE == CACHE + TEMPLATE
    assert sorted(constants.HF_URL_HOSTS) == ["127.0.0.1", "hf.co"]
    assert modules["huggingface_hub.file_download"].HUGGINGFACE_CO_URL_TEMPLATE.startswith(CACHE)
    assert modules["huggingface_hub.hf_api"].api.endpoint == CACHE
    assert modules["huggingface_hub.hf_file_system"].hffs.endpoint == CACHE
    assert modules["huggingface_hub.hf_file_system"].hffs._api.endpoint == CACHE
    assert modules["huggingface_hub.hf_file_system"].HfFileSystem.cleared == 1
    assert modules["datasets.config"].HF_ENDPOINT == CACHE
    assert modules["datasets.config"].HUB_DATASETS_URL == CACHE + "/datasets/{repo_id}"
    assert report.patched == ["datasets", "huggingface_hub"]


def test_use_leaves_what_means_the_public_hub_and_other_packages() -> None:
    modules = hub()
    KernelSwitch({}, modules).use(CACHE)
    constants = modules["huggingface_hub.constants"]
    assert constants._HF_DEFAULT_ENDPOINT == PUBLIC_HUB
    assert constants.HUGGINGFACE_CO_URL_HOME == "https://huggingface.co/"
    assert modules["datasets.config"].S3_DATASETS_BUCKET_PREFIX == "https://s3.amazonaws.com/"
    assert modules["unrelated"].ENDPOINT == PUBLIC_HUB


def everything(modules: dict[str, ModuleType]) -> dict[str, Any]:
    members = {
        f"{name}.{key}": value
        for name, made in modules.items()
        for key, value in vars(made).items()
        if isinstance(value, (str, frozenset))
    }
    api = modules["huggingface_hub.hf_api"].api
    system = modules["huggingface_hub.hf_file_system"].hffs
    return {**members, "api": api.endpoint, "fs": system.endpoint, "fs api": system._api.endpoint}


def test_off_restores_every_copy() -> None:
    modules = hub()
    before = everything(modules)
    switch = KernelSwitch({}, modules)
    switch.use(CACHE)
    assert everything(modules) != before
    switch.off()
    assert everything(modules) == before


def test_a_second_use_does_not_forget_the_beginning() -> None:
    modules, environ = hub(), dict[str, str]()
    before = everything(modules)
    switch = KernelSwitch(environ, modules)
    switch.use(CACHE)
    switch.use("http://127.0.0.1:9999/pulp/content/team")
    assert modules["huggingface_hub.constants"].ENDPOINT.endswith("/team")
    switch.off()
    assert everything(modules) == before
    assert environ == {}


def test_off_also_reaches_what_was_imported_while_it_was_on() -> None:
    environ: dict[str, str] = {}
    modules: dict[str, ModuleType] = {}
    switch = KernelSwitch(environ, modules)
    switch.use(CACHE)
    modules.update(hub(CACHE))
    switch.off()
    assert modules["huggingface_hub.constants"].ENDPOINT == PUBLIC_HUB
    assert modules["huggingface_hub.hf_api"].api.endpoint == PUBLIC_HUB
    assert not switch.on


def test_off_in_a_kernel_that_was_born_with_the_cache() -> None:
    environ = {"HF_ENDPOINT": CACHE, "JUPYTER_HF_CACHE_URL": CACHE, "PATH": "/bin"}
    modules = hub(CACHE)
    report = KernelSwitch(environ, modules).off()
    assert report.endpoint == PUBLIC_HUB
    assert environ == {"PATH": "/bin"}
    assert modules["huggingface_hub.constants"].ENDPOINT == PUBLIC_HUB


def test_off_in_such_a_kernel_brings_the_users_own_hub_back() -> None:
    environ = {"HF_ENDPOINT": CACHE, "JUPYTER_HF_CACHE_URL": CACHE}
    environ["JUPYTER_HF_CACHE_UPSTREAM"] = MIRROR
    modules = hub(CACHE)
    assert KernelSwitch(environ, modules).off().endpoint == MIRROR
    assert environ == {"HF_ENDPOINT": MIRROR}
    assert modules["huggingface_hub.constants"].ENDPOINT == MIRROR


def test_off_leaves_an_endpoint_of_the_users_own() -> None:
    environ = {"HF_ENDPOINT": "https://mirror.example"}
    assert KernelSwitch(environ, {}).off().endpoint == "https://mirror.example"
    assert environ == {"HF_ENDPOINT": "https://mirror.example"}


def test_objects_the_user_made_earlier_are_named() -> None:
    modules = hub()
    mine = [modules["huggingface_hub.hf_api"].HfApi() for _ in range(2)]
    report = KernelSwitch({}, modules).use(CACHE)
    assert [m.endpoint for m in mine] == [PUBLIC_HUB] * 2
    assert report.left == [
        "2 HfApi objects made earlier keep the old endpoint; make HfApi() again."
    ]


def test_connections_are_renewed_only_where_a_proxy_is_set() -> None:
    closed: list[str] = []
    http = module("huggingface_hub.utils._http", close_session=lambda: closed.append("closed"))
    modules = {**hub(), http.__name__: http}
    KernelSwitch({}, modules).use(CACHE)
    assert closed == []
    KernelSwitch({"HTTPS_PROXY": "http://proxy.example"}, modules).use(CACHE)
    assert closed == ["closed"]


def test_strange_things_in_sys_modules_do_no_harm() -> None:
    modules: dict[str, Any] = {
        "huggingface_hub": SimpleNamespace(ENDPOINT=PUBLIC_HUB),
        "datasets": None,
        "transformers.utils.hub": module("x", HUGGINGFACE_CO_PREFIX=PUBLIC_HUB + "/{model_id}"),
    }
    assert KernelSwitch({}, modules).use(CACHE).patched == ["transformers"]


@pytest.mark.parametrize(
    ("upper", "lower", "expected"),
    [
        (None, None, "127.0.0.1"),
        ("a, b", None, "a,b,127.0.0.1"),
        (None, "a", "a,127.0.0.1"),
        ("a,127.0.0.1", "*", "a,127.0.0.1"),
    ],
)
def test_no_proxy_gets_the_host_once(upper: str | None, lower: str | None, expected: str) -> None:
    given = {"NO_PROXY": upper, "no_proxy": lower}
    environ = {name: value for name, value in given.items() if value is not None}
    assert variables(CACHE, environ)["NO_PROXY"] == expected


@pytest.mark.parametrize(
    ("endpoint", "own", "expected"),
    [
        ("", "", False),
        ("https://huggingface.co", "", False),
        ("https://mirror.example", "http://127.0.0.1:1/x", False),
        ("http://127.0.0.1:1/x/", "http://127.0.0.1:1/x", True),
        (CACHE, "", True),
        ("http://127.0.0.1:9999/pulp/content/hf", "", False),
    ],
)
def test_the_caches_endpoint_is_recognised(endpoint: str, own: str, expected: bool) -> None:
    environ = {"JUPYTER_HF_CACHE_URL": own}
    assert is_cache_endpoint(endpoint, environ, "http://127.0.0.1:8888/") is expected


@pytest.mark.parametrize(
    ("wanted", "read", "expected"),
    [
        (CACHE, None, "on"),
        (CACHE, CACHE, "on"),
        (CACHE, PUBLIC_HUB, "off (huggingface_hub was imported before"),
        ("https://u:secret@mirror.example", None, "off (own HF_ENDPOINT https://mirror.example;"),
        ("", PUBLIC_HUB, "off (%hf_cache use turns it on)"),
    ],
)
def test_the_state_of_a_kernel(wanted: str, read: str | None, expected: str) -> None:
    modules = {} if read is None else hub(read)
    state = kernel_state("http://127.0.0.1:8888/", {"HF_ENDPOINT": wanted}, modules)
    assert state.startswith(expected)
    assert "secret" not in state


def test_a_capability_is_never_shown() -> None:
    assert redacted(CACHE) == "http://127.0.0.1:8888/pulp/content/~…/hf"
