"""The whole matrix: what is presented, from where, and what is asked for."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace

import pytest

from jupyter_hf_cache.errors import HfCacheError, NotAdmitted
from jupyter_hf_cache.web.capability import Capabilities, verifier_of
from jupyter_hf_cache.web.credentials import Login, Throttle, read_authorization, same
from jupyter_hf_cache.web.entrance import AllowAnonymous, Entrance, Request, Rules, admit
from jupyter_hf_cache.web.network import Sender, identify, parse_networks

JUPYTER_TOKEN = "jupyter-token-0123456789"
CACHE_TOKEN = "jhc_0123456789"
PASSWORD = "correct horse"
HF_TOKEN = "hf_0123456789"
KEYS = Capabilities([b"k" * 32])
TICKET = KEYS.issue(24 * 3600, "alice")
KEY, REVOKED = KEYS.issue_key(None), KEYS.issue_key(None)
EXPIRED_KEY = Capabilities([b"k" * 32]).issue_key(1000.0)
NAMED = {verifier_of(KEY): "ci", verifier_of(EXPIRED_KEY): "old"}
EXPIRED = Capabilities([b"k" * 32], clock=lambda: 1000.0).issue(60)
FORGED = Capabilities([b"x" * 32]).issue(24 * 3600)
PROXIES = parse_networks(["10.0.0.1"])

LOOPBACK = identify("127.0.0.1", "http", "localhost:8888", {})
REBOUND = identify("127.0.0.1", "http", "evil.example.org", {})
REMOTE = identify("192.168.1.9", "http", "192.168.1.5:8888", {})
PROXIED = identify("127.0.0.1", "http", "localhost:8888", {"X-Forwarded-For": "127.0.0.1"})
TRUSTED_PROXY = identify(
    "10.0.0.1", "http", "hub.example.org", {"X-Forwarded-For": "203.0.113.9"}, PROXIES
)


class Credentials:
    """Knows one token, one cookie and one password, and writes down what it was shown."""

    def __init__(self, authorization: str | None, cookie: bool, query_token: str) -> None:
        self.authorization = authorization
        self.cookie = cookie
        self.query_token = query_token
        self.shown: list[str] = []

    async def login(self, *, show_authorization: bool) -> Login | None:
        if show_authorization and self.authorization:
            self.shown.append(self.authorization)
            if same(read_authorization(self.authorization).secret, JUPYTER_TOKEN):
                return Login("jo", "token")
        if self.query_token == JUPYTER_TOKEN:
            return Login("jo", "token")
        return Login("jo", "cookie") if self.cookie else None

    async def check_password(self, user: str, password: str) -> bool:
        self.shown.append(password)
        return password in (PASSWORD, JUPYTER_TOKEN)

    def is_own(self, secret: str) -> bool:
        return same(secret, JUPYTER_TOKEN)


async def find_key(verifier: str) -> str | None:
    return NAMED.get(verifier)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def ask(
    sender: Sender = LOOPBACK,
    authorization: str | None = None,
    *,
    surface: str = "content",
    method: str = "GET",
    ticket: str | None = None,
    cookie: bool = False,
    query_token: str = "",
    allow: AllowAnonymous = "loopback",
    throttle: Throttle | None = None,
) -> tuple[Entrance | int, Credentials]:
    """Run `admit`: an entrance or the status of the refusal, and who was asked."""
    credentials = Credentials(authorization, cookie, query_token)
    path = f"~{ticket}/hf/org/m" if ticket is not None else "hf/org/m"
    request = Request(
        surface="content" if surface == "content" else "api",
        method=method,
        sender=sender,
        authorization=authorization,
        may_login=cookie or bool(query_token),
        path=path if surface == "content" else "",
        root="http://h/pulp/content/",
    )
    rules = Rules(allow, KEYS, CACHE_TOKEN, throttle or Throttle(), find_key)
    try:
        return asyncio.run(admit(request, rules, credentials)), credentials
    except HfCacheError as error:
        return error.status, credentials


def short(found: Entrance | int) -> object:
    if isinstance(found, int):
        return found
    return f"{found.kind}/{found.via}" + (f"+{found.bearer}" if found.bearer else "")


BEARER = f"Bearer {HF_TOKEN}"
UPSTREAM = f"+{HF_TOKEN}"

# (what is presented, keyword arguments), then the answer for each sender, with `loopback`.
SENDERS = {
    "loopback": LOOPBACK,
    "rebound": REBOUND,
    "remote": REMOTE,
    "proxied": PROXIED,
    "trusted proxy": TRUSTED_PROXY,
}
CONTENT = {
    "nothing": ({}, ["anonymous/loopback", 401, 401, 401, 401]),
    "hf bearer": (
        {"authorization": BEARER},
        ["own-token/loopback" + UPSTREAM, 401, 401, 401, 401],
    ),
    "api bearer": (
        {"authorization": "Bearer api_x"},
        ["own-token/loopback+api_x", 401, 401, 401, 401],
    ),
    "hf by basic": (
        {"authorization": basic("git", HF_TOKEN)},
        ["own-token/loopback" + UPSTREAM, 401, 401, 401, 401],
    ),
    "capability": (
        {"ticket": TICKET},
        ["trusted/capability"] * 3 + [401, "trusted/capability"],
    ),
    "capability and hf bearer": (
        {"ticket": TICKET, "authorization": BEARER},
        ["trusted/capability" + UPSTREAM] * 3 + [401, "trusted/capability" + UPSTREAM],
    ),
    "capability and another hub's bearer": (
        {"ticket": TICKET, "authorization": "Bearer mirror-token"},
        ["trusted/capability+mirror-token"] * 3 + [401, "trusted/capability+mirror-token"],
    ),
    "capability and jupyter token": (
        {"ticket": TICKET, "authorization": f"Bearer {JUPYTER_TOKEN}"},
        ["trusted/capability"] * 3 + ["trusted/login", "trusted/capability"],
    ),
    "capability and cache token": (
        {"ticket": TICKET, "authorization": f"Bearer {CACHE_TOKEN}"},
        ["trusted/capability"] * 3 + ["trusted/cache-token", "trusted/capability"],
    ),
    "capability and a dead server's cache token": (
        {"ticket": TICKET, "authorization": "Bearer jhc_old"},
        ["trusted/capability"] * 3 + [401, "trusted/capability"],
    ),
    "capability and password": (
        {"ticket": TICKET, "authorization": basic("x", PASSWORD)},
        ["trusted/capability"] * 3 + ["trusted/basic", "trusted/capability"],
    ),
    "key": ({"ticket": KEY}, ["trusted/key"] * 3 + [401, "trusted/key"]),
    "key and hf bearer": (
        {"ticket": KEY, "authorization": BEARER},
        ["trusted/key" + UPSTREAM] * 3 + [401, "trusted/key" + UPSTREAM],
    ),
    "revoked key": ({"ticket": REVOKED}, ["anonymous/loopback", 401, 401, 401, 401]),
    "expired key": ({"ticket": EXPIRED_KEY}, ["anonymous/loopback", 401, 401, 401, 401]),
    "forged capability": ({"ticket": FORGED}, ["anonymous/loopback", 401, 401, 401, 401]),
    "expired capability": ({"ticket": EXPIRED}, ["anonymous/loopback", 401, 401, 401, 401]),
    "empty capability": ({"ticket": ""}, ["anonymous/loopback", 401, 401, 401, 401]),
    "forged capability and hf bearer": (
        {"ticket": FORGED, "authorization": BEARER},
        ["own-token/loopback" + UPSTREAM, 401, 401, 401, 401],
    ),
    "jupyter token": ({"authorization": f"token {JUPYTER_TOKEN}"}, ["trusted/login"] * 5),
    "jupyter bearer": ({"authorization": f"Bearer {JUPYTER_TOKEN}"}, ["trusted/login"] * 5),
    "query token": ({"query_token": JUPYTER_TOKEN}, ["trusted/login"] * 5),
    "query token and hf bearer": (
        {"query_token": JUPYTER_TOKEN, "authorization": BEARER},
        ["trusted/login" + UPSTREAM] * 5,
    ),
    "wrong query token": ({"query_token": "x"}, ["anonymous/loopback", 401, 401, 401, 401]),
    "unknown bearer": ({"authorization": "Bearer who-knows"}, [401] * 5),
    "cookie": ({"cookie": True}, ["trusted/login"] * 5),
    "cookie and hf bearer": (
        {"cookie": True, "authorization": BEARER},
        ["trusted/login" + UPSTREAM] * 5,
    ),
    "cookie, writing": (
        {"cookie": True, "method": "POST"},
        ["anonymous/loopback", 401, 401, 401, 401],
    ),
    "jupyter token, writing": (
        {"authorization": f"token {JUPYTER_TOKEN}", "method": "POST"},
        ["trusted/login"] * 5,
    ),
    "password": ({"authorization": basic("admin", PASSWORD)}, ["trusted/basic"] * 5),
    "token as password": ({"authorization": basic("x", JUPYTER_TOKEN)}, ["trusted/basic"] * 5),
    "wrong password": ({"authorization": basic("admin", "wrong")}, [401] * 5),
    "no password": ({"authorization": basic("admin", "")}, [401] * 5),
    "cache token": ({"authorization": f"token {CACHE_TOKEN}"}, ["trusted/cache-token"] * 5),
    "cache token as HF_TOKEN": (
        {"authorization": f"Bearer {CACHE_TOKEN}"},
        ["trusted/cache-token"] * 5,
    ),
    "wrong cache token": ({"authorization": "token jhc_wrong"}, [401] * 5),
    "unknown scheme": (
        {"authorization": "Digest x"},
        ["anonymous/loopback", 401, 401, 401, 401],
    ),
    "broken basic": (
        {"authorization": "Basic !!!"},
        ["anonymous/loopback", 401, 401, 401, 401],
    ),
}


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("presented", CONTENT)
def test_who_comes_in_to_content(presented: str, sender: str) -> None:
    arguments, expected = CONTENT[presented]
    found, credentials = ask(SENDERS[sender], **arguments)
    assert short(found) == expected[list(SENDERS).index(sender)]
    assert not any(HF_TOKEN in shown or "api_x" in shown for shown in credentials.shown)
    if isinstance(found, Entrance):
        assert found.bearer not in (JUPYTER_TOKEN, CACHE_TOKEN, PASSWORD)
        assert found.path == "hf/org/m"
        ticket = {"capability": f"~{TICKET}/", "key": f"~{KEY}/"}.get(found.via, "")
        assert found.base == f"http://h/pulp/content/{ticket}"
        assert found.same_machine is (sender in ("loopback", "rebound"))


API = {
    "nothing": ({}, 401),
    "hf bearer": ({"authorization": BEARER}, 401),
    "hf by basic": ({"authorization": basic("x", HF_TOKEN)}, 401),
    "jupyter token": ({"authorization": f"token {JUPYTER_TOKEN}"}, "trusted/login"),
    "query token": ({"query_token": JUPYTER_TOKEN}, "trusted/login"),
    "cookie": ({"cookie": True}, "trusted/login"),
    "password": ({"authorization": basic("admin", PASSWORD)}, "trusted/basic"),
    "wrong password": ({"authorization": basic("admin", "wrong")}, 401),
    "cache token": ({"authorization": f"token {CACHE_TOKEN}"}, "trusted/cache-token"),
    "wrong cache token": ({"authorization": "token jhc_wrong"}, 401),
    "unknown bearer": ({"authorization": "Bearer who-knows"}, 401),
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("presented", API)
def test_only_trusted_callers_come_in_to_the_api(presented: str, sender: str, method: str) -> None:
    arguments, expected = API[presented]
    for allow in ("never", "loopback", "network"):
        found, _ = ask(SENDERS[sender], surface="api", method=method, allow=allow, **arguments)
        assert short(found) == expected


@pytest.mark.parametrize(
    ("sender", "never", "loopback", "network"),
    [
        ("loopback", 401, "anonymous/loopback", "anonymous/loopback"),
        ("rebound", 401, 401, "anonymous/network"),
        ("remote", 401, 401, "anonymous/network"),
        ("proxied", 401, 401, "anonymous/network"),
        ("trusted proxy", 401, 401, "anonymous/network"),
    ],
)
def test_allow_anonymous(sender: str, never: object, loopback: object, network: object) -> None:
    for allow, expected in (("never", never), ("loopback", loopback), ("network", network)):
        assert short(ask(SENDERS[sender], allow=allow)[0]) == expected  # type: ignore[arg-type]


def test_from_afar_a_token_of_the_hub_opens_nothing_more() -> None:
    # Public content only, whatever it opens elsewhere; the service sees to that by `via`.
    assert short(ask(REMOTE, BEARER, allow="network")[0]) == "own-token/network" + UPSTREAM
    assert short(ask(LOOPBACK, BEARER, allow="network")[0]) == "own-token/loopback" + UPSTREAM
    assert short(ask(LOOPBACK, BEARER, allow="never")[0]) == 401


def test_a_capability_names_its_user() -> None:
    found, credentials = ask(REMOTE, ticket=TICKET, cookie=True)
    assert isinstance(found, Entrance)
    assert found.user == "alice"
    assert credentials.shown == []
    found, _ = ask(REMOTE, ticket=KEY)
    assert isinstance(found, Entrance)
    assert found.user == "ci"


def test_where_no_keys_are_known_none_counts() -> None:
    request = Request("content", "GET", REMOTE, path=f"~{KEY}/hf", root="http://h/")
    rules = Rules("loopback", KEYS, CACHE_TOKEN, Throttle())
    with pytest.raises(NotAdmitted):
        asyncio.run(admit(request, rules, Credentials(None, False, "")))


def test_while_there_is_no_key_a_capability_is_worth_nothing() -> None:
    request = Request("content", "GET", REMOTE, path=f"~{TICKET}/hf", root="http://h/")
    rules = Rules("loopback", None, CACHE_TOKEN, Throttle())
    with pytest.raises(NotAdmitted):
        asyncio.run(admit(request, rules, Credentials(None, False, "")))


def test_a_refusal_says_what_to_do() -> None:
    for ticket in (None, FORGED, EXPIRED):
        path = f"~{ticket}/hf" if ticket else "hf"
        request = Request("content", "GET", REMOTE, path=path, root="http://h/")
        with pytest.raises(NotAdmitted, match="no entrance") as refusal:
            asyncio.run(
                admit(
                    request, Rules("loopback", KEYS, "", Throttle()), Credentials(None, False, "")
                )
            )
        assert "jupyter hf-cache env" in refusal.value.text


def test_wrong_passwords_are_slowed_down_per_address() -> None:
    now = 0.0
    throttle = Throttle(limit=3, window=60, clock=lambda: now)
    wrong, right = basic("admin", "wrong"), basic("admin", PASSWORD)
    assert [ask(REMOTE, wrong, throttle=throttle)[0] for _ in range(4)] == [401, 401, 401, 429]
    found, credentials = ask(REMOTE, right, throttle=throttle)
    assert (found, credentials.shown) == (429, [])
    assert short(ask(LOOPBACK, right, throttle=throttle)[0]) == "trusted/basic"
    now = 60.5
    assert short(ask(REMOTE, right, throttle=throttle)[0]) == "trusted/basic"


def test_behind_a_trusted_proxy_each_client_is_counted_for_itself() -> None:
    throttle = Throttle(limit=1, window=60)
    wrong = basic("admin", "wrong")
    assert ask(TRUSTED_PROXY, wrong, throttle=throttle)[0] == 401
    assert ask(TRUSTED_PROXY, wrong, throttle=throttle)[0] == 429
    assert ask(replace(TRUSTED_PROXY, client="203.0.113.7"), wrong, throttle=throttle)[0] == 401


def test_nothing_secret_is_in_a_repr() -> None:
    found, _ = ask(LOOPBACK, BEARER, ticket=TICKET)
    shown = repr(found) + repr(read_authorization(basic("u", PASSWORD)))
    assert HF_TOKEN not in shown
    assert TICKET not in shown
    assert PASSWORD not in shown
