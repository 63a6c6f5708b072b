"""curl and wget, which know nothing of Hugging Face."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from clients.server import JupyterServer, wait_for
from fake_hub import BigFile, FakeHub

pytestmark = pytest.mark.clients

MIB = 1 << 20
FILE = "org/large/resolve/main/model.bin"
WEIGHTS = BigFile(8 * MIB + 12345, seed=1)


def curl(*words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", *words], capture_output=True, timeout=60
    )
    assert not check or done.returncode == 0, done.stderr.decode()
    return done


def head_of(done: subprocess.CompletedProcess[bytes]) -> tuple[str, dict[str, str]]:
    """The status line and the headers of `curl -i` or `curl -I`."""
    first, *rest = done.stdout.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    pairs = (line.partition(": ") for line in rest)
    return first, {name.lower(): value for name, _, value in pairs}


def test_a_download_has_the_right_bytes(server: JupyterServer, tmp_path: Path) -> None:
    for name, url in (("kernel", server.endpoint), ("loopback", f"{server.content}/hf")):
        curl("-f", "-o", str(tmp_path / name), f"{url}/{FILE}")
        assert (tmp_path / name).read_bytes() == WEIGHTS.read(0, WEIGHTS.size)


def test_a_download_is_named_after_the_file(server: JupyterServer, tmp_path: Path) -> None:
    # As the tutorial writes it: -O, and no -L, so there must be no redirect.
    subprocess.run(
        ["curl", "-sSfO", f"{server.content}/hf/bert-base-uncased/resolve/main/vocab.txt"],
        cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip
    assert "[MASK]" in (tmp_path / "vocab.txt").read_text(encoding="utf-8").split()


def test_a_download_that_was_cut_is_resumed(
    server: JupyterServer, hub: FakeHub, tmp_path: Path
) -> None:
    content = BigFile(6 * MIB + 5, seed=61)
    hub.repo("models", "org/resume").commit({"curl-resume.bin": content})
    url = f"{server.endpoint}/org/resume/resolve/main/curl-resume.bin"
    target = tmp_path / "model.bin"
    hub.fault("stall", "curl-resume.bin", host="cdn", at=2 * MIB)
    with subprocess.Popen(["curl", "-sS", "--noproxy", "*", "-o", str(target), url]) as process:
        assert hub.faults.wait_until_stalled()
        wait_for(lambda: (target.exists() and target.stat().st_size >= MIB) or None, "start")
        process.kill()
    hub.faults.release()
    kept = target.stat().st_size
    assert 0 < kept < content.size
    curl("-f", "-C", "-", "-o", str(target), url)
    assert target.read_bytes() == content.read(0, content.size)
    assert content.size <= hub.counters.bytes("cdn", "curl-resume.bin") <= content.size + MIB


def test_resuming_a_complete_file_changes_nothing(server: JupyterServer, tmp_path: Path) -> None:
    target = tmp_path / "model.bin"
    curl("-f", "-o", str(target), f"{server.endpoint}/{FILE}")
    again = curl("-i", "-r", f"{WEIGHTS.size}-", f"{server.endpoint}/{FILE}")
    status, headers = head_of(again)
    assert status.startswith("HTTP/1.1 416")
    assert headers["content-range"] == f"bytes */{WEIGHTS.size}"
    curl("-C", "-", "-o", str(target), f"{server.endpoint}/{FILE}", check=False)
    assert target.stat().st_size == WEIGHTS.size


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [("0-99", 0, 100), ("5000000-5000999", 5_000_000, 5_001_000), ("-77", WEIGHTS.size - 77, None)],
)
def test_a_range_is_a_range(
    server: JupyterServer,
    proves: Callable[..., None],
    wanted: str,
    start: int,
    end: int | None,
) -> None:
    end = WEIGHTS.size if end is None else end
    answer = curl("-i", "-r", wanted, f"{server.endpoint}/{FILE}")
    status, headers = head_of(answer)
    assert status.startswith("HTTP/1.1 206")
    assert headers["content-range"] == f"bytes {start}-{end - 1}/{WEIGHTS.size}"
    assert answer.stdout.partition(b"\r\n\r\n")[2] == WEIGHTS.read(start, end - start)
    proves("curl", "ranges")


def test_the_requests_of_hf_hub_in_rust(server: JupyterServer, hub: FakeHub) -> None:
    # 0.4 and 0.5 learn the size from a range of one byte, twice, however small the file is; from
    # 1.0 on it is a HEAD, and what is kept is asked for by its digest.
    url = f"{server.endpoint}/bert-base-uncased/resolve/main/config.json"
    size = hub.catalogue.get("models", "bert-base-uncased").head.files["config.json"].size
    for _ in range(2):
        status, headers = head_of(curl("-i", "-r", "0-0", url))
        assert status.startswith("HTTP/1.1 206")
        assert headers["content-range"] == f"bytes 0-0/{size}"
        assert headers["x-repo-commit"] and headers["etag"] and headers["accept-ranges"] == "bytes"
    head = head_of(curl("-I", url))[1]
    assert head["etag"] == headers["etag"] and head["content-length"] == str(size)
    known = head_of(curl("-I", "-H", f"If-None-Match: {head['etag']}", url))
    assert known[0].startswith("HTTP/1.1 304")


def test_head_says_what_get_will_send_and_a_known_etag_gets_304(
    server: JupyterServer, hub: FakeHub
) -> None:
    url = f"{server.endpoint}/{FILE}"
    status, headers = head_of(curl("-I", url))
    assert status.startswith("HTTP/1.1 200")
    assert headers["etag"] == f'"{WEIGHTS.sha256()}"'
    assert headers["content-length"] == str(WEIGHTS.size)
    assert headers["x-repo-commit"] == hub.catalogue.get("models", "org/large").head.sha
    assert "location" not in headers
    known = curl("-i", "-H", f"If-None-Match: {headers['etag']}", url)
    assert head_of(known)[0].startswith("HTTP/1.1 304")
    assert known.stdout.partition(b"\r\n\r\n")[2] == b""
    other = curl("-i", "-H", 'If-None-Match: "no"', "-r", "0-0", url)
    assert head_of(other)[0].startswith("HTTP/1.1 206")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("org/no/resolve/main/config.json", 401, "RepoNotFound"),
        ("org/private/resolve/main/config.json", 401, "RepoNotFound"),
        ("org/gated/resolve/main/config.json", 401, "GatedRepo"),
        ("org/large/resolve/main/no.txt", 404, "EntryNotFound"),
        ("org/large/resolve/no/model.bin", 404, "RevisionNotFound"),
    ],
)
def test_a_refusal_has_the_hub_s_code(
    server: JupyterServer, path: str, status: int, code: str
) -> None:
    answer = curl("-i", f"{server.endpoint}/{path}")
    line, headers = head_of(answer)
    assert line.split()[1] == str(status)
    assert headers["x-error-code"] == code
    assert headers["x-error-message"]
    assert curl("-f", f"{server.endpoint}/{path}", check=False).returncode == 22


@pytest.mark.skipif(not shutil.which("wget"), reason="wget is not installed")
def test_wget_downloads_and_resumes(
    server: JupyterServer, tmp_path: Path, proves: Callable[..., None]
) -> None:
    (tmp_path / "model.bin").write_bytes(WEIGHTS.read(0, 3 * MIB))
    subprocess.run(
        ["wget", "-q", "--no-proxy", "-c", f"{server.endpoint}/{FILE}"],
        cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip
    assert (tmp_path / "model.bin").read_bytes() == WEIGHTS.read(0, WEIGHTS.size)
    proves("wget", "ranges")
