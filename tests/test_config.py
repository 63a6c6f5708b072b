from __future__ import annotations

from pathlib import Path

import pytest
from traitlets import TraitError
from traitlets.config import Config

from jupyter_hf_cache import config
from jupyter_hf_cache.config import HfCache
from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.service import CacheService

HUB_VARIABLES = ("JUPYTERHUB_SERVICE_PREFIX", "JUPYTERHUB_API_TOKEN")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *HUB_VARIABLES,
        "HF_ENDPOINT",
        "JUPYTER_HF_CACHE_URL",
        config.CACHE_DIR_VARIABLE,
        config.PASSWORD_VARIABLE,
        config.PASSWORD_FILE_VARIABLE,
    ):
        monkeypatch.delenv(name, raising=False)


def test_every_option_says_what_it_does() -> None:
    for name, trait in HfCache.class_own_traits(config=True).items():
        assert len(trait.help) > 40, name


def test_every_option_of_the_service_has_its_trait(tmp_path: Path) -> None:
    values = {
        "cache_dir": str(tmp_path / "c"),
        "data_dir": str(tmp_path / "d"),
        "config_dir": str(tmp_path / "e"),
        "default_upstream": "https://hub.example.org",
        "cache_size_limit": 5_000_000,
        "min_free_space": 1,
        "revision_ttl": 2.0,
        "metadata_ttl": 3.0,
        "negative_ttl": 4.0,
        "access_ttl": 5.0,
        "access_grace": 6.0,
        "linger": 7.0,
        "adopt_by_link": True,
        "offline": True,
        "read_only": True,
    }
    options = HfCache(config=Config({"HfCache": values})).service_options()
    for name, value in values.items():
        found = getattr(options, name)
        assert (str(found) if isinstance(found, Path) else found) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache_dir", "relative/path"),
        ("data_dir", "x"),
        ("cache_size_limit", 20),
        ("cache_size_limit", "200GB"),
        ("min_free_space", -1),
        ("revision_ttl", -1),
        ("default_upstream", "huggingface.co"),
        ("default_upstream", "https://user:password@hub.example.org"),
        ("allow_anonymous", "yes"),
        ("trusted_proxies", ["proxy.example.org"]),
        ("inject_env", ["HF ENDPOINT"]),
        ("inject_env", [""]),
        ("capability_ttl", 1),
        ("adopt_from", ["relative/path"]),
    ],
)
def test_values_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(TraitError):
        HfCache(config=Config({"HfCache": {name: value}}))


def test_the_default_cache_directory_can_be_set_from_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(config.CACHE_DIR_VARIABLE, "/fast/disk")
    assert HfCache().cache_dir == "/fast/disk"


def test_files_are_taken_over_from_where_the_users_libraries_keep_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "/home/me/hub")
    assert HfCache().service_options().adopt_from == (Path("/home/me/hub"),)
    chosen = HfCache(config=Config({"HfCache": {"adopt_from": ["~/a", "/b"]}})).service_options()
    assert chosen.adopt_from == (Path("~/a").expanduser(), Path("/b"))
    assert HfCache(adopt_from=[]).service_options().adopt_from == ()


def test_an_empty_directory_is_the_default_and_never_the_current_one() -> None:
    empty = HfCache(config=Config({"HfCache": {"cache_dir": "", "data_dir": "", "config_dir": ""}}))
    assert empty.service_options() == HfCache().service_options()


def test_the_users_own_endpoint_is_the_default_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HfCache().default_upstream == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org/")
    assert HfCache().default_upstream == "https://hub.example.org"
    monkeypatch.setenv("JUPYTER_HF_CACHE_URL", "https://hub.example.org")
    assert HfCache().default_upstream == "https://huggingface.co"


@pytest.mark.parametrize(
    ("value", "names"),
    [(True, ["HF_ENDPOINT"]), (False, []), ([], []), (["A", "B"], ["A", "B"])],
)
def test_inject_env_is_a_list_or_a_switch(value: object, names: list[str]) -> None:
    assert HfCache(config=Config({"HfCache": {"inject_env": value}})).injected_names() == names


def test_under_a_jupyterhub_nobody_is_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HfCache().access_options(ip="127.0.0.1").allow_anonymous == "loopback"
    for name in HUB_VARIABLES:
        monkeypatch.setenv(name, "x")
    assert HfCache().access_options(ip="").allow_anonymous == "never"
    for chosen in ("loopback", "network"):
        options = HfCache(allow_anonymous=chosen).access_options(ip="")
        assert options.allow_anonymous == "never"


@pytest.mark.parametrize(
    ("ip", "host", "ours"),
    [
        ("127.0.0.1", "localhost:1", True),
        ("127.0.0.1", "192.168.1.5", False),
        ("192.168.1.5", "192.168.1.5:8888", True),
        ("192.168.1.5", "192.168.1.6", False),
        ("0.0.0.0", "192.168.1.5", True),
        ("0.0.0.0", "evil.example.org", False),
        ("", "[2001:db8::1]:8888", True),
        ("2001:db8::1", "[2001:db8::1]:8888", True),
        ("127.0.0.1", "Cache.Example.org", True),
        ("127.0.0.1", "own-name", True),
    ],
)
def test_which_hosts_are_ours(ip: str, host: str, ours: bool) -> None:
    cache = HfCache(allowed_hosts=["cache.example.org"])
    assert cache.access_options(ip=ip, names=("own-name",)).hosts.allows(host) is ours


def test_the_admin_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HfCache().read_admin_password() == ""
    monkeypatch.setenv(config.PASSWORD_VARIABLE, "from the environment")
    assert HfCache().read_admin_password() == "from the environment"
    file = tmp_path / "password"
    file.write_text("from a file\n")
    monkeypatch.setenv(config.PASSWORD_FILE_VARIABLE, str(file))
    assert HfCache().read_admin_password() == "from a file"
    option = tmp_path / "other"
    option.write_text("from the option")
    assert HfCache(admin_password_file=str(option)).read_admin_password() == "from the option"


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_a_password_file_without_password_is_an_error(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    with pytest.raises(TraitError, match="password file"):
        HfCache(admin_password_file=str(file)).read_admin_password()


def test_on_a_network_file_system_the_tables_are_kept_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "network_type_of", lambda path: "nfs4")
    monkeypatch.setattr(config, "local_state_dir", lambda path: tmp_path / "local")
    assert HfCache(cache_dir="/nfs/cache").service_options().state_dir == tmp_path / "local"
    monkeypatch.setattr(config, "local_state_dir", lambda path: None)
    with pytest.raises(StorageError, match=r"nfs4.*cache_dir"):
        try:
            HfCache(cache_dir="/nfs/cache").service_options()
        except StorageError as error:
            raise StorageError(error.text) from error


def test_a_home_on_a_network_file_system_keeps_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, machines = tmp_path / "home", [tmp_path / "one", tmp_path / "two"]
    monkeypatch.setattr(
        config, "network_type_of", lambda path: "nfs4" if home in path.parents else None
    )
    names = []
    for machine in machines:
        monkeypatch.setattr(config, "local_state_dir", lambda path, to=machine: to)
        options = HfCache(
            cache_dir=str(machine / "cache"), data_dir=str(home / "data"), config_dir=str(tmp_path)
        ).service_options()
        assert (options.state_dir, options.data_state_dir) == (None, machine)
        service = CacheService.open(options)
        names.append([remote.name for remote in service.config.remotes()])
        service.config.create_remote({"name": machine.name, "url": "https://hub.example.org"})
        service.close()
    assert names == [["default"], ["default", "one"]]
    assert not list(home.rglob("cache.db"))
