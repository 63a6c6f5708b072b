"""Every option, as `c.HfCache.*`, shared by the Jupyter extension and the stand-alone server.

Responsible for: names, defaults, validation and help texts, and turning them into the records that
the core takes.
Not responsible for: acting on them. Secrets are no options: they come from a file or the
environment.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jupyter_core.paths import jupyter_config_dir, jupyter_data_dir
from platformdirs import user_cache_dir
from traitlets import (
    Bool,
    Enum,
    Float,
    Integer,
    List,
    TraitError,
    Unicode,
    Union,
    default,
    validate,
)
from traitlets.config import LoggingConfigurable

from jupyter_hf_cache.environment import ENDPOINT, inherited_upstream
from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.filesystem import local_state_dir, network_type_of
from jupyter_hf_cache.storage.own_cache import own_cache_directory
from jupyter_hf_cache.storage.records import DEFAULT_HUB
from jupyter_hf_cache.web.context import AccessOptions
from jupyter_hf_cache.web.cors import CorsRules, parse_origins
from jupyter_hf_cache.web.guard import HostRules
from jupyter_hf_cache.web.network import parse_networks

if TYPE_CHECKING:
    from jupyter_hf_cache.service.options import ServiceOptions
    from jupyter_hf_cache.web.entrance import AllowAnonymous

CACHE_DIR_VARIABLE = "JUPYTER_HF_CACHE_DIR"
PASSWORD_VARIABLE = "JUPYTER_HF_CACHE_ADMIN_PASSWORD"  # noqa: S105 - a name
PASSWORD_FILE_VARIABLE = "JUPYTER_HF_CACHE_ADMIN_PASSWORD_FILE"  # noqa: S105 - a name

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class HfCache(LoggingConfigurable):
    """The options of the Hugging Face cache."""

    cache_dir = Unicode(
        help="""Where downloaded files are kept. It may be deleted at any time while no server uses
        it, and may be shared by several servers of one user. Choose a local disk with room. The
        environment variable JUPYTER_HF_CACHE_DIR changes the default.""",
    ).tag(config=True)
    data_dir = Unicode(
        help="""Where remotes, distributions and access records are kept: small, and worth a backup.
        Default: hf-cache in Jupyter's data directory.""",
    ).tag(config=True)
    config_dir = Unicode(
        help="""Where the key file hf-cache.key lies, which encrypts stored tokens and signs
        endpoints. Without it stored tokens have to be entered again. The environment variable
        JUPYTER_HF_CACHE_KEY replaces the file. Default: Jupyter's configuration directory.""",
    ).tag(config=True)
    cache_size_limit = Integer(
        None,
        allow_none=True,
        help="""The most bytes that the cache may take; the least recently used files make room.
        Default: 20 % of the disk, at most 200 GB.""",
    ).tag(config=True)
    min_free_space = Integer(
        10 * 10**9,
        min=0,
        help="""Bytes of the disk that the cache leaves free; files make room before less is
        left.""",
    ).tag(config=True)
    default_upstream = Unicode(
        help="""URL of the Hub that the remote "default" is created with. Default: the HF_ENDPOINT
        that was set when the server started, else https://huggingface.co.""",
    ).tag(config=True)
    revision_ttl = Float(
        60.0,
        min=0,
        help="""Seconds for which a branch or tag is not asked for again. 0 asks at each
        request.""",
    ).tag(config=True)
    metadata_ttl = Float(
        60.0,
        min=0,
        help="""Seconds for which repo pages, refs and lists are not asked for
        again.""",
    ).tag(config=True)
    negative_ttl = Float(
        60.0, min=0, help="""Seconds for which "no such repo" is not asked for again."""
    ).tag(config=True)
    access_ttl = Float(
        60.0,
        min=0,
        help="""Seconds for which the right to read a private or gated repo is not asked for
        again.""",
    ).tag(config=True)
    access_grace = Float(
        3600.0,
        min=0,
        help="""Seconds for which such a right still holds on a server with several users when the
        Hub cannot be asked.""",
    ).tag(config=True)
    linger = Float(
        60.0,
        min=0,
        help="""Seconds for which a download goes on after its last reader has left. One that is
        half done is always finished.""",
    ).tag(config=True)
    adopt_from = List(
        Unicode(),
        help="""Directories laid out like HF_HUB_CACHE, of the same user, from which files are taken
        over instead of being downloaded. [] takes nothing over. Default: the user's own, from
        HF_HUB_CACHE, HF_HOME or XDG_CACHE_HOME as the server sees them. Only on a server that has
        one user.""",
    ).tag(config=True)
    adopt_by_link = Bool(
        False,
        help="""Take files over by hard link, without a copy, where the directory is on the same
        disk. They are looked at before each answer, and fetched anew when the user changed
        them; see the operators' page for what that cannot see.""",
    ).tag(config=True)
    offline = Bool(
        False,
        help="""Never ask the Hub: serve what is kept, answer the rest at once with an
        error.""",
    ).tag(config=True)
    read_only = Bool(
        False,
        help="""Refuse uploads and every other change on the Hub that is sent through the
        cache.""",
    ).tag(config=True)
    pass_through_large_files = Bool(
        True,
        help="""Let clients load files over 50 GB from the Hub's own storage (Xet), past this
        cache: Python clients load them in no other way, and they are not kept here. False refuses
        them with an error that says so, and gives out no Xet tokens for reading.""",
    ).tag(config=True)
    allow_anonymous = Enum(
        ("never", "loopback", "network"),
        help="""Who may read without a capability or login. "loopback": programs on this machine,
        which can then read what the Hub shows to everybody, or what their own token opens.
        "network": everybody who reaches the port, public content only. "never" is the default under
        a JupyterHub, where other users' programs run on the same machine, and cannot be changed
        there.""",
    ).tag(config=True)
    allowed_hosts = List(
        Unicode(),
        help="""Host names under which this server is reached, beside localhost, the loopback
        addresses and the address it listens on. A request for any other name is refused, which
        protects against DNS rebinding.""",
    ).tag(config=True)
    trusted_proxies = List(
        Unicode(),
        help="""Addresses or networks ("10.0.0.7", "10.0.0.0/8") of reverse proxies. Their
        X-Forwarded-* headers are believed, and endpoints with a capability work through them.""",
    ).tag(config=True)
    cors_origins = List(
        Unicode(),
        help="""Origins ("https://pages.example.org") whose web pages may read content through the
        stand-alone server, with JavaScript clients of the Hub; "*" for all. Pages read only what
        everybody may who reaches the server, or what a token that they send opens, and change
        nothing. A Jupyter server ignores it.""",
    ).tag(config=True)
    inject_env = Union(
        [Bool(), List(Unicode())],
        default_value=[ENDPOINT],
        help="""The variables that hold the cache's endpoint in new kernels and terminals. False or
        [] leaves kernels alone; True is ["HF_ENDPOINT"].""",
    ).tag(config=True)
    capability_ttl = Float(
        30 * 86400.0,
        min=60,
        help="""Seconds for which an endpoint that was given to a kernel is good. The server renews
        it for new kernels in time.""",
    ).tag(config=True)
    admin_password_file = Unicode(
        help="""A file with the password for HTTP Basic (any user name), readable for the server's
        user only. JUPYTER_HF_CACHE_ADMIN_PASSWORD_FILE or JUPYTER_HF_CACHE_ADMIN_PASSWORD in the
        environment do the same.""",
    ).tag(config=True)

    @default("cache_dir")
    def _default_cache_dir(self) -> str:
        return os.environ.get(CACHE_DIR_VARIABLE) or user_cache_dir("jupyter-hf-cache", False)

    @default("data_dir")
    def _default_data_dir(self) -> str:
        return str(Path(jupyter_data_dir()) / "hf-cache")

    @default("config_dir")
    def _default_config_dir(self) -> str:
        return jupyter_config_dir()

    @default("adopt_from")
    def _default_adopt_from(self) -> list[str]:
        return [str(own_cache_directory(os.environ))]

    @default("default_upstream")
    def _default_default_upstream(self) -> str:
        return inherited_upstream(os.environ) or DEFAULT_HUB

    @default("allow_anonymous")
    def _default_allow_anonymous(self) -> str:
        return "never" if is_under_jupyterhub() else "loopback"

    @validate("cache_dir", "data_dir", "config_dir")
    def _check_directory(self, proposal: Any) -> str:
        path = Path(str(proposal["value"])).expanduser()
        if not path.is_absolute():
            raise TraitError(f"HfCache.{proposal['trait'].name} needs an absolute path.")
        return str(path)

    @validate("adopt_from")
    def _check_directories(self, proposal: Any) -> list[str]:
        paths = [Path(value).expanduser() for value in proposal["value"]]
        if not all(path.is_absolute() for path in paths):
            raise TraitError("HfCache.adopt_from needs absolute paths.")
        return [str(path) for path in paths]

    @validate("cache_size_limit")
    def _check_size(self, proposal: Any) -> int | None:
        value: int | None = proposal["value"]
        if value is not None and value < 1_000_000:
            raise TraitError("HfCache.cache_size_limit is in bytes and at least 1000000.")
        return value

    @validate("default_upstream")
    def _check_upstream(self, proposal: Any) -> str:
        url = inherited_upstream({ENDPOINT: str(proposal["value"])})
        if url is None:
            raise TraitError("HfCache.default_upstream needs a URL such as https://huggingface.co.")
        return url

    @validate("trusted_proxies")
    def _check_proxies(self, proposal: Any) -> list[str]:
        try:
            parse_networks(proposal["value"])
        except ValueError as error:
            raise TraitError(f"HfCache.trusted_proxies: {error}.") from None
        return list(proposal["value"])

    @validate("cors_origins")
    def _check_origins(self, proposal: Any) -> list[str]:
        try:
            parse_origins(proposal["value"])
        except ValueError as error:
            raise TraitError(f"HfCache.cors_origins: {error}.") from None
        return list(proposal["value"])

    @validate("inject_env")
    def _check_names(self, proposal: Any) -> bool | list[str]:
        value: bool | list[str] = proposal["value"]
        for name in [] if isinstance(value, bool) else value:
            if not _VARIABLE.fullmatch(name):
                raise TraitError(f"HfCache.inject_env: {name!r} is no name of a variable.")
        return value

    def injected_names(self) -> list[str]:
        """The variables of `inject_env` as a list."""
        if isinstance(self.inject_env, bool):
            return [ENDPOINT] if self.inject_env else []
        return [str(name) for name in self.inject_env]

    def service_options(self) -> ServiceOptions:
        """What `CacheService.open` takes. Looks at the disk, so not on the event loop.

        Raises:
            StorageError: `cache_dir` or `data_dir` is on a network file system, and there is no
                local directory for its tables.
        """
        from jupyter_hf_cache.service.options import ServiceOptions

        # Traitlets lets an empty string through to here; it means the default.
        cache_dir = Path(self.cache_dir or self._default_cache_dir())
        data_dir = Path(self.data_dir or self._default_data_dir())
        return ServiceOptions(
            cache_dir=cache_dir,
            data_dir=data_dir,
            config_dir=Path(self.config_dir or self._default_config_dir()),
            state_dir=self._state_dir("cache_dir", cache_dir),
            data_state_dir=self._state_dir("data_dir", data_dir),
            default_upstream=self.default_upstream,
            cache_size_limit=self.cache_size_limit,
            min_free_space=self.min_free_space,
            revision_ttl=self.revision_ttl,
            metadata_ttl=self.metadata_ttl,
            negative_ttl=self.negative_ttl,
            access_ttl=self.access_ttl,
            access_grace=self.access_grace,
            linger=self.linger,
            adopt_from=tuple(map(Path, self.adopt_from)),
            adopt_by_link=self.adopt_by_link,
            offline=self.offline,
            read_only=self.read_only,
            pass_through_large_files=self.pass_through_large_files,
        )

    def _state_dir(self, option: str, directory: Path) -> Path | None:
        """Where the tables of a directory go instead, if it is on a network file system: SQLite
        needs locks that hold."""
        network = network_type_of(directory)
        if network is None:
            return None
        state_dir = local_state_dir(directory)
        if state_dir is None:
            raise StorageError(
                f"The directory {directory} is on a network file system ({network}).",
                advice=f"Set c.HfCache.{option} to a directory on a local disk.",
            )
        self.log.info(
            "%s %s is on a network file system (%s): its tables are kept in %s",
            option,
            directory,
            network,
            state_dir,
        )
        return state_dir

    def access_options(
        self,
        *,
        ip: str,
        any_host: bool = False,
        names: tuple[str, ...] = (),
        pages: bool = False,
    ) -> AccessOptions:
        """What the guard and the entrance take.

        Args:
            ip: the address the server listens on; "" or a wildcard for all.
            any_host: the app has been told to accept every host name.
            names: the app's own host names.
            pages: nothing but the cache is at this origin, so that pages of others may be let
                read.
        """
        if self.cors_origins and not pages:
            self.log.warning("HfCache.cors_origins is ignored: it is for the stand-alone server")
        anonymous = cast("AllowAnonymous", self.allow_anonymous)
        if is_under_jupyterhub() and anonymous != "never":
            self.log.warning("HfCache.allow_anonymous is ignored: a JupyterHub runs this server")
            anonymous = "never"
        if anonymous == "network":
            self.log.warning("everybody who reaches this server may read public content through it")
        wildcard = ip in ("", "*", "0.0.0.0", "::")  # noqa: S104 - a comparison
        own = (*self.allowed_hosts, *names, *(() if wildcard else (ip,)))
        return AccessOptions(
            allow_anonymous=anonymous,
            cors=CorsRules(parse_origins(self.cors_origins) if pages else frozenset()),
            hosts=HostRules(
                names=frozenset(name.strip("[]").lower().rstrip(".") for name in own),
                any_host=any_host,
                any_address=wildcard,
            ),
            trusted_proxies=parse_networks(self.trusted_proxies),
            capability_ttl=self.capability_ttl,
        )

    def read_admin_password(self) -> str:
        """The configured admin password, or "" if there is none.

        Raises:
            TraitError: a file is named that cannot be read or is empty.
        """
        name = self.admin_password_file or os.environ.get(PASSWORD_FILE_VARIABLE, "")
        if not name:
            return os.environ.get(PASSWORD_VARIABLE, "")
        try:
            password = Path(name).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TraitError(f"The admin password file {name} cannot be read: {error}.") from None
        if not password:
            raise TraitError(f"The admin password file {name} is empty.")
        return password


def is_under_jupyterhub() -> bool:
    """Whether a JupyterHub started this process for one of its users."""
    return bool(
        os.environ.get("JUPYTERHUB_SERVICE_PREFIX") and os.environ.get("JUPYTERHUB_API_TOKEN")
    )
