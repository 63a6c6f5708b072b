"""Everything huggingface_hub and git change on the Hub, through a Jupyter server's cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clients.environments import HUBS, Client
from clients.server import JupyterServer, wait_for
from fake_hub import BigFile, FakeHub, User
from fake_hub.streams import Streams

pytestmark = pytest.mark.clients

MIB = 1 << 20
PUBLIC = "https://huggingface.co"


@pytest.fixture
def writer(client: Client) -> Client:
    """A client that is logged in as alice."""
    client.settings |= {"HF_TOKEN": "hf_alice", "HF_HUB_DISABLE_XET": "1"}
    if client.name == "hub0":  # which asks the Hub first whether the repo is in Xet
        del client.settings["HF_HUB_DISABLE_XET"]
    return client


@pytest.fixture(params=[PUBLIC, None], ids=["huggingface.co", "another-hub"])
def public_url(request: pytest.FixtureRequest, hub: FakeHub) -> Iterator[str | None]:
    """What the Hub calls itself in its answers."""
    hub.public_url = request.param
    yield request.param
    hub.public_url = None


def test_what_is_given_back_names_the_hub_and_no_capability(
    hub: FakeHub, writer: Client, server: JupyterServer, public_url: str | None
) -> None:
    kind = "named" if public_url else "own"
    rows = writer.run(f"""
import huggingface_hub as hf
api = hf.HfApi()
rows = []
for type in ("model", "dataset", "space"):
    name = f"alice/urls-{kind}-{writer.name}-{{type}}"
    extra = dict(space_sdk="static") if type == "space" else {{}}
    made = api.create_repo(name, repo_type=type, private=True, **extra)
    again = api.create_repo(name, repo_type=type, exist_ok=True, **extra)
    put = dict(path_in_repo="a.txt", repo_id=name, repo_type=type)
    done = api.upload_file(path_or_fileobj=b"hello", **put)
    api.upload_file(path_or_fileobj=name.encode() * 9, **{{**put, "path_in_repo": "m.bin"}})
    asked = api.upload_file(path_or_fileobj=b"better", create_pr=True, **put)
    rows.append([name, type, str(made), made.repo_id, made.repo_type, str(again), again.repo_id,
        done.commit_url, str(done.repo_url), done.repo_url.repo_id, done.repo_url.repo_type,
        asked.commit_url, asked.pr_url, asked.pr_num, asked.pr_revision, done.oid])
tell(rows)
""")
    ticket = server.endpoint.partition("/~")[2].partition("/")[0]
    for row in rows:
        name, type, made, made_id, made_type, again, again_id, commit, url, id, url_type = row[:11]
        asked, proposal, number, ref, oid = row[11:]
        assert (made_id, again_id, id) == (name, name, name)
        assert {made_type, url_type} == {type}
        prefix = "" if type == "model" else f"{type}s/"
        shown = {made, again, commit, asked, proposal}
        if writer.name != "hub0":
            shown.add(url)
        assert not any(ticket in text for text in shown), shown
        assert commit.endswith(f"{prefix}{name}/commit/{oid}")
        assert proposal == f"{hub.public_url}/{prefix}{name}/discussions/{number}"
        assert ref == f"refs/pr/{number}"
        if public_url is None:
            assert {made, again, commit.partition("/commit")[0]} == {f"hf://{prefix}{name}"}
        elif writer.name == "hub0":
            assert commit.startswith(f"{PUBLIC}/")
        else:
            assert {made, again, url} == {f"https://hf.co/{prefix}{name}"}


def test_a_folder_goes_up_and_comes_down(hub: FakeHub, writer: Client) -> None:
    body = BigFile(3 * MIB + 7, seed=700 + HUBS.index(writer.name))
    folder = writer.home / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("# Folder\n")
    (folder / "sub" / "large.bin").write_bytes(body.read(0, body.size))
    name = f"alice/folder-{writer.name}"
    result = writer.run(f"""
import huggingface_hub as hf
api = hf.HfApi()
name = "{name}"
api.create_repo(name, repo_type="dataset")
before = api.list_repo_files(name, repo_type="dataset")
api.upload_folder(folder_path="folder", repo_id=name, repo_type="dataset")
down = hf.snapshot_download(name, repo_type="dataset")
api.create_commit(name, repo_type="dataset", commit_message="m", operations=[
    hf.CommitOperationCopy("sub/large.bin", "copy.bin"), hf.CommitOperationDelete("README.md"),
])
after = hf.snapshot_download(name, repo_type="dataset")
api.super_squash_history(name, repo_type="dataset")
commits = len(api.list_repo_commits(name, repo_type="dataset"))
tell([before, sums(down)["sub/large.bin"], sums(after), commits])
""")
    assert result[0] == [".gitattributes"]
    assert result[1] == body.sha256()
    assert {name for name in result[2]} == {".gitattributes", "sub/large.bin", "copy.bin"}
    assert result[2]["copy.bin"] == body.sha256()
    assert result[3] == 1


@pytest.mark.parametrize("entrance", ["key", "address"])
def test_a_file_goes_up_in_parts(
    hub: FakeHub, writer: Client, server: JupyterServer, entrance: str
) -> None:
    if entrance == "address":
        writer.endpoint = f"{server.content}/hf"
    body = BigFile(2 * MIB + 7, seed=600 + 2 * HUBS.index(writer.name) + (entrance == "key"))
    name = f"alice/parts-{writer.name}-{entrance}"
    writer.home.mkdir(parents=True)
    (writer.home / "m.bin").write_bytes(body.read(0, body.size))
    hub.part_size = MIB
    try:
        told = writer.run(f"""
import huggingface_hub as hf
api = hf.HfApi()
api.create_repo("{name}")
api.upload_file(path_or_fileobj="m.bin", path_in_repo="m.bin", repo_id="{name}")
tell(sha256(hf.hf_hub_download("{name}", "m.bin")))
""")
    finally:
        hub.part_size = None
    assert told == body.sha256()
    assert len(hub.parts[told]) == 3
    (completed,) = hub.counters.select(path_contains=f"complete_multipart?uploadId={told}")
    assert completed.authorization is None


def test_refs_settings_and_names_are_seen_at_once(hub: FakeHub, writer: Client) -> None:
    name = f"alice/refs-{writer.name}"
    result = writer.run(f"""
import huggingface_hub as hf
api = hf.HfApi()
name = "{name}"
api.create_repo(name)
api.upload_file(path_or_fileobj=b"one", path_in_repo="a.txt", repo_id=name)
def read(revision="main", repo=name, **named):
    with open(hf.hf_hub_download(repo, "a.txt", revision=revision, **named)) as file:
        return file.read()
def visible(**named):
    place = f"place-{{len(seen)}}"
    return error(hf.hf_hub_download, name, "a.txt", cache_dir=place, **named)[:1]
seen = [read(), error(read, "side")[:1], error(read, "v1")[:1]]
api.create_branch(name, branch="side")
api.create_tag(name, tag="v1")
api.upload_file(path_or_fileobj=b"two", path_in_repo="a.txt", repo_id=name)
seen += [read(), read("side"), read("v1")]
api.delete_branch(name, branch="side")
api.delete_tag(name, tag="v1")
seen += [sorted(r.name for r in api.list_repo_refs(name).branches + api.list_repo_refs(name).tags)]
seen += [visible(token=False), visible(token="hf_bob")]
settings = api.update_repo_settings
settings(name, private=True)
seen += [visible(token=False), visible(token="hf_bob"), visible()]
settings(name, private=False)
seen += [visible(token=False)]
settings(name, gated="auto")
seen += [visible(token="hf_bob")]
api.grant_access(name, "bob")
seen += [visible(token="hf_bob"), [r.username for r in api.list_accepted_access_requests(name)]]
api.move_repo(name, name + "-moved")
seen += [read(repo=name + "-moved"), read(), api.model_info(name + "-moved").id]
api.delete_repo(name + "-moved")
name += "-moved"
seen += [visible(), error(api.model_info, name)[:1]]
tell(seen)
""")
    missing = ["RepositoryNotFoundError"]
    assert result[:7] == [
        "one",
        ["RevisionNotFoundError"],
        ["RevisionNotFoundError"],
        "two",
        "one",
        "one",
        ["main"],
    ]
    assert result[7:13] == [[], [], missing, missing, [], []]
    assert result[13:16] == [["GatedRepoError"], [], ["bob"]]
    assert result[16:] == ["two", "two", f"{name}-moved", missing, missing]


def test_people_talk_and_like_through_it(hub: FakeHub, writer: Client) -> None:
    name = f"alice/talk-{writer.name}"
    result = writer.run(f"""
import huggingface_hub as hf
api = hf.HfApi()
name = "{name}"
api.create_repo(name)
talk = api.create_discussion(name, "A question", description="Why?")
api.comment_discussion(name, talk.num, comment="Because.")
api.rename_discussion(name, talk.num, new_title="An answer")
api.change_discussion_status(name, talk.num, new_status="closed")
told = api.get_discussion_details(name, talk.num)
proposal = api.create_pull_request(name, "A change")
api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=name,
                revision=f"refs/pr/{{proposal.num}}")
before = api.list_repo_files(name)
api.merge_pull_request(name, proposal.num)
after = api.list_repo_files(name)
rows = [(d.title, d.status, d.is_pull_request) for d in api.get_repo_discussions(name)]
# No release has a method for it: the Hub wants people to like by hand.
from huggingface_hub.utils import get_session
like = os.environ["HF_ENDPOINT"] + "/api/models/org/large/like"
get_session().post(like, headers=api._build_hf_headers()).raise_for_status()
liked = api.list_liked_repos("alice").models
api.unlike("org/large")
unliked = api.list_liked_repos("alice").models
kept = api.create_collection("My things")
kept = api.add_collection_item(kept.slug, "org/large", "model")
items = [item.item_id for item in api.get_collection(kept.slug).items]
api.delete_collection(kept.slug)
gone = bool(error(api.get_collection, kept.slug))
api.auth_check(name)
tell([told.title, told.status, [e.type for e in told.events], before, after, rows,
      liked, unliked, items, gone, api.whoami()["name"]])
""")
    assert result[0] == "An answer"
    assert result[1] == "closed"
    assert result[2] == ["comment", "comment", "title-change", "status-change"]
    assert ("x.txt" in result[3], "x.txt" in result[4]) == (False, True)
    assert result[5] == [["A change", "merged", True], ["An answer", "closed", False]]
    assert result[6:] == [["org/large"], [], ["org/large"], True, "alice"]


def test_the_command_line_writes(hub: FakeHub, writer: Client, server: JupyterServer) -> None:
    name = f"alice/cli-{writer.name}"
    (writer.home / "folder").mkdir(parents=True)
    (writer.home / "folder" / "a.txt").write_text("hello\n")
    repo = "hf repo" if writer.name == "hub0" else "hf repos"
    said = writer.shell(f"{repo} create {name}").stdout
    assert name in said
    ticket = server.endpoint.partition("/~")[2].partition("/")[0]
    assert writer.name == "hub0" or ticket not in said
    writer.shell(f"hf upload {name} folder .")
    writer.shell(f"{repo} tag create {name} v1")
    writer.shell(f"hf download {name} --local-dir down")
    assert (writer.home / "down" / "a.txt").read_text() == "hello\n"
    made = hub.catalogue.get("models", name)
    assert made.resolve("v1") is made.head
    writer.shell(f"{repo} delete {name} {'' if writer.name == 'hub0' else '--yes'}", check=False)


@pytest.mark.parametrize("client", ["hub2", "hub1"], indirect=True)
def test_a_log_arrives_line_by_line(hub: FakeHub, writer: Client) -> None:
    hub.streams = Streams()
    hub.streams.say("building")
    process = writer.start("""
import huggingface_hub as hf
for line in hf.HfApi().fetch_space_logs("org/page", follow=True):
    tell(line)
""")
    try:
        assert "building" in process.stdout.readline()
        hub.streams.say("running")
        assert "running" in process.stdout.readline()
        assert hub.streams.listeners == 1
    finally:
        process.kill()
        process.communicate()
    assert wait_for(lambda: hub.streams.listeners == 0 or None, "end of the stream upstream")


@pytest.mark.parametrize("client", ["hub2"], indirect=True)
def test_a_device_is_logged_in(hub: FakeHub, client: Client) -> None:
    process = client.start("""
import huggingface_hub as hf
from huggingface_hub.utils._oauth_device import poll_device_token, request_device_code
device = request_device_code()
tell([device["verification_uri"], device["user_code"]])
sys.stdout.flush()
token = poll_device_token(device)
tell(hf.whoami(token=token["access_token"])["name"])
""")
    asked = process.stdout.readline()
    assert f"{hub.url}/oauth/device" in asked
    hub.approve_device_logins(User("carol"))
    said, wrong = process.communicate(timeout=60)
    assert '"carol"' in said, wrong


@pytest.mark.parametrize("client", ["hub2", "hub1"], indirect=True)
def test_buckets_are_made_and_listed(hub: FakeHub, writer: Client) -> None:
    name = f"alice/bucket-{writer.name}"
    result = writer.run(f"""
import huggingface_hub as hf
api = hf.HfApi()
made = api.create_bucket("{name}")
info = api.bucket_info("{name}")
rows = list(api.list_bucket_tree("{name}"))
rows += list(api.get_bucket_paths_info("{name}", ["notes.txt"]))
api.delete_bucket("{name}")
tell([made.url, made.bucket_id, info.total_files, [len(row.xet_hash) for row in rows],
      bool(error(api.bucket_info, "{name}"))])
""")
    assert result == [f"hf://buckets/{name}", name, 1, [64, 64], True]
