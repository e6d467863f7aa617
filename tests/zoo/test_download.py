"""Downloads from a server on this machine that breaks off, lies, redirects and refuses."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, ClassVar

import pytest

import upernet.zoo.transfer
from upernet.errors import UserError, WorkError
from upernet.zoo.download import cached_path, fetch, file_hash, published_hash
from upernet.zoo.fetch import fetch_model
from upernet.zoo.hub import fetch_hub

BODY = bytes(range(256)) * 4000  # about a megabyte
OTHER = BODY[::-1]
ELSEWHERE = "the same command resumes; --mirror https://mirror.example/omm or UPERNET_MIRROR names another server"
NAME = f"model-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"


class Server(ThreadingHTTPServer):
    """Says nothing when a client has hung up, which some of these tests do on purpose."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@dataclass
class Site:
    """What the server has, how it behaves, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    validators: bool = True
    length: str | None = None
    """What it says of each answer's length, where that is not true."""
    status: int = 200
    location: str | None = None
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off."""
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Path, Range and If-Range of each request."""
    gate: threading.Event | None = None


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(files={f"/mm/{NAME}": BODY, "/mm/model.pth": BODY})

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.asked.append((self.path, asked, self.headers.get("If-Range")))
            body = site.files.get(self.path.partition("?")[0])
            status = 404 if body is None and site.status == 200 else site.status
            if status != 200:
                self.send_response(status)
                if site.location:
                    self.send_header("Location", site.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            assert body is not None
            etag = f'"{hashlib.sha256(body).hexdigest()[:12]}"'
            begin = 0
            if asked and site.ranges and self.headers.get("If-Range", etag) == etag:
                begin = int(asked.removeprefix("bytes=").removesuffix("-"))
                if begin >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            if site.validators:
                self.send_header("ETag", etag)
            self.send_header("Content-Length", site.length or str(len(body) - begin))
            self.end_headers()
            if site.gate:
                site.gate.wait(5)
            count = site.cuts.pop(0) if site.cuts else len(body)
            self.wfile.write(body[begin : begin + count])

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("UPERNET_MIRROR", "HF_ENDPOINT", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(upernet.zoo.transfer, "PAUSE", 0.0)
    return tmp_path / "torch" / "hub" / "checkpoints"


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def content(path: Path) -> str:
    """Which body a file holds; pytest would compare a megabyte byte by byte for minutes to show where two differ."""
    return {BODY: "BODY", OTHER: "OTHER"}.get(path.read_bytes(), "neither")


def ranges(site: Site) -> list[str | None]:
    return [asked for _, asked, _ in site.asked]


# --- names ----------------------------------------------------------------------------------------------------------


def test_the_cache_is_where_other_programs_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    address = "https://download.openmmlab.com/a/x.pth?v=1#top"
    assert cached_path(address) == tmp_path / "torch/hub/checkpoints/x.pth"
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cached_path(address) == tmp_path / "xdg/torch/hub/checkpoints/x.pth"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cached_path(address) == Path.home() / ".cache/torch/hub/checkpoints/x.pth"


@pytest.mark.parametrize(
    ("last", "name"),
    [
        ("x.pth", "x.pth"),
        ("..%2F..%2Fevil.pth", "evil.pth"),
        ("a%5Cb.pth", "b.pth"),
        (".bashrc", "bashrc"),
        ("a%00b%0A.pth", "a%00b%0A.pth"),
        ("a b.pth", "a%20b.pth"),
        ("model+s=1.2.pth", "model+s=1.2.pth"),
    ],
)
def test_file_names_are_harmless(last: str, name: str, cache: Path) -> None:
    assert cached_path(f"https://host/folder/{last}") == cache / name


@pytest.mark.parametrize("address", ["https://host/", "https://host", "https://host/..", "https://host/a/%2e%2e"])
def test_an_address_must_name_a_file(address: str) -> None:
    with pytest.raises(UserError, match=r"names no file; for example https://host/model.pth"):
        fetch(address)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://host/x.pth", "x.pth", "https:///x.pth", "http://[::"])
def test_other_schemes_are_refused(address: str, site: Site) -> None:
    with pytest.raises(UserError, match=r"is no address of weights; for example https://host/model.pth or hf://owner"):
        fetch_model(address)
    assert site.asked == []


def test_the_hash_of_a_name() -> None:
    assert published_hash("upernet_r50_20200605_094827-aa54cb54.pth") == "aa54cb54"
    assert published_hash("a-aa54cb54.pth.tar") == "aa54cb54"
    assert published_hash("a-12345678.pth") == "12345678"
    assert published_hash("a-00a54cb5.pth") == "00a54cb5"
    for name in ("model.pth", "a-aa54cb5.pth", "a-xa54cb54.pth", "a-aa54cb54", "a-20200605.pth", "aa54cb54.pth"):
        assert published_hash(name) is None
    for name in ("iter-00080000.pth", "step-0000000000160000.ckpt"):
        assert published_hash(name) is None


# --- whole files ----------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once(site: Site, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fetch(f"{site.address}/mm/{NAME}")
    assert path == cache / NAME
    assert content(path) == "BODY"
    assert [p.name for p in cache.iterdir()] == [NAME]
    assert fetch(f"{site.address}/mm/{NAME}") == path
    assert len(site.asked) == 1
    assert capsys.readouterr() == ("", "")


def test_a_file_is_fetched_through_a_mirror(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    far = f"https://download.nowhere.invalid/{NAME}?v=1"
    assert content(fetch(far, mirror=f"{site.address}/mm/")) == "BODY"
    assert site.asked[-1][0] == f"/mm/{NAME}?v=1"
    cached_path(far).unlink()
    monkeypatch.setenv("UPERNET_MIRROR", f"{site.address}/mm")
    assert content(fetch(far)) == "BODY"
    assert len(site.asked) == 2
    with pytest.raises(UserError, match=r"mirror 'mirror.example' is no address; for example https://mirror.example/"):
        fetch(far, mirror="mirror.example")


def test_a_damaged_file_in_the_cache_is_told_and_replaced(
    site: Site, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(BODY[:-1])
    assert content(fetch(f"{site.address}/mm/{NAME}")) == "BODY"
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    begins = hashlib.sha256(BODY[:-1]).hexdigest()[:8]
    assert f"{cache / NAME}: sha256 begins with {begins} instead of {published_hash(NAME)}; downloading it again" in err


def test_two_addresses_of_one_name_are_told_apart(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.files["/other/model.pth"] = OTHER
    assert content(fetch(f"{site.address}/mm/model.pth")) == "BODY"
    assert content(fetch(f"{site.address}/other/model.pth")) == "OTHER"
    assert "came from http" in capsys.readouterr().err
    assert content(fetch(f"{site.address}/other/model.pth")) == "OTHER"
    assert len(site.asked) == 2


def test_a_file_without_hash_from_another_program_is_taken(site: Site, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "model.pth").write_bytes(OTHER)
    assert content(fetch(f"{site.address}/mm/model.pth")) == "OTHER"
    assert site.asked == []


def test_a_wrong_hash_deletes_the_file(site: Site, cache: Path) -> None:
    site.files[f"/mm/{NAME}"] = OTHER
    with pytest.raises(WorkError) as error:
        fetch(f"{site.address}/mm/{NAME}")
    line = one_line(error)
    for part in (NAME, hashlib.sha256(OTHER).hexdigest()[:8], str(published_hash(NAME))):
        assert part in line
    assert list(cache.iterdir()) == []


def test_a_hash_may_be_given(site: Site) -> None:
    address = f"{site.address}/mm/model.pth"
    with pytest.raises(WorkError, match="instead of 00000000"):
        fetch(address, sha256="00000000")
    assert content(fetch(address, sha256=hashlib.sha256(BODY).hexdigest().upper())) == "BODY"
    with pytest.raises(UserError, match="sha256 'xyz' is no hash; for example aa54cb54"):
        fetch(address, sha256="xyz")


def test_a_file_is_hashed_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []

    def digest(file: IO[bytes], name: str) -> Any:
        hashed.append(os.fstat(file.fileno()).st_ino)
        return hashlib.new(name, file.read())

    monkeypatch.setattr(hashlib, "file_digest", digest)
    path = fetch(f"{site.address}/mm/{NAME}")
    assert file_hash(path) == hashlib.sha256(BODY).hexdigest()  # as opening it asks
    assert fetch(f"{site.address}/mm/{NAME}") == path
    assert len(hashed) == 1
    path.write_bytes(BODY[:-1])
    assert file_hash(path) == hashlib.sha256(BODY[:-1]).hexdigest()
    path.write_bytes(OTHER)
    os.utime(path, ns=(0, 0))
    assert file_hash(path) == hashlib.sha256(OTHER).hexdigest()
    assert content(fetch(f"{site.address}/mm/{NAME}")) == "BODY"


def test_a_length_without_end_is_none(site: Site) -> None:
    site.length = "9" * 5000
    assert content(fetch(f"{site.address}/mm/{NAME}")) == "BODY"


# --- broken connections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NAME, "model.pth"])
def test_a_broken_connection_is_taken_up_again(name: str, site: Site) -> None:
    site.cuts = [300_000, 200_000]
    assert content(fetch(f"{site.address}/mm/{name}")) == "BODY"
    assert ranges(site) == [None, "bytes=300000-", "bytes=500000-"]
    assert site.asked[1][2] == f'"{hashlib.sha256(BODY).hexdigest()[:12]}"'


def test_the_next_command_resumes(site: Site, cache: Path) -> None:
    site.cuts = [100_000] * 4
    with pytest.raises(WorkError) as error:
        fetch(f"{site.address}/mm/{NAME}")
    line = one_line(error)
    assert "the connection broke off after 400,000 of 1,024,000 bytes; the same command resumes" in line
    assert site.address in line
    assert sorted(p.name for p in cache.iterdir()) == [f"{NAME}.part", f"{NAME}.part.json"]
    assert content(fetch(f"{site.address}/mm/{NAME}")) == "BODY"
    assert ranges(site)[-1] == "bytes=400000-"
    assert [p.name for p in cache.iterdir()] == [NAME]


def test_a_server_without_ranges_starts_over(site: Site) -> None:
    site.ranges, site.cuts = False, [300_000]
    assert content(fetch(f"{site.address}/mm/{NAME}")) == "BODY"
    assert ranges(site) == [None, "bytes=300000-"]


def test_a_file_that_changed_in_between_is_not_spliced(site: Site) -> None:
    site.cuts = [300_000, 0, 0, 0]
    with pytest.raises(WorkError):
        fetch(f"{site.address}/mm/model.pth")
    site.files["/mm/model.pth"] = OTHER
    assert content(fetch(f"{site.address}/mm/model.pth")) == "OTHER"


def test_without_anything_to_compare_a_download_starts_over(site: Site) -> None:
    site.validators, site.cuts = False, [300_000]
    assert content(fetch(f"{site.address}/mm/model.pth")) == "BODY"
    assert ranges(site) == [None, None]
    site.cuts, site.asked = [300_000], []
    assert content(fetch(f"{site.address}/mm/{NAME}")) == "BODY"  # here the hash would tell
    assert ranges(site) == [None, "bytes=300000-"]


def test_a_part_longer_than_the_file_starts_over(site: Site, cache: Path) -> None:
    cache.mkdir(parents=True)
    address = f"{site.address}/mm/{NAME}"
    etag = f'"{hashlib.sha256(BODY).hexdigest()[:12]}"'
    (cache / f"{NAME}.part").write_bytes(BODY + b"more")
    (cache / f"{NAME}.part.json").write_text(json.dumps({"address": address, "validator": etag}))
    assert content(fetch(address)) == "BODY"
    assert ranges(site) == ["bytes=1024004-", None]


def test_a_part_of_unknown_origin_starts_over(site: Site, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / f"{NAME}.part").write_bytes(OTHER[:1000])
    (cache / f"{NAME}.part.json").write_text("{")
    assert content(fetch(f"{site.address}/mm/{NAME}")) == "BODY"
    assert ranges(site) == [None]


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_refusals_are_told(status: int, site: Site, cache: Path) -> None:
    site.status = status
    with pytest.raises(WorkError, match=f"HTTP {status} .*the same command resumes") as error:
        fetch(f"{site.address}/mm/{NAME}")
    assert f"{site.address}/mm/{NAME}" in one_line(error)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x.pth"])
def test_redirects_leave_http_no_more(location: str, site: Site) -> None:
    site.status, site.location = 302, location
    with pytest.raises(WorkError, match=f"redirects to '{location}', not followed") as error:
        fetch(f"{site.address}/mm/{NAME}")
    one_line(error)


def test_redirects_to_http_are_followed(site: Site) -> None:
    site.location = f"{site.address}/mm/{NAME}"
    site.files["/moved.pth"] = b""

    # The server redirects everything while its status is set, so it must change back for the second request.
    class Once(list[tuple[str, str | None, str | None]]):
        def append(self, item: tuple[str, str | None, str | None]) -> None:
            site.status = 302 if not self else 200
            super().append(item)

    site.asked = Once()
    assert content(fetch(f"{site.address}/moved.pth")) == "BODY"
    assert [path for path, _, _ in site.asked] == ["/moved.pth", f"/mm/{NAME}"]


def test_nobody_there_is_told() -> None:
    with pytest.raises(WorkError) as error:
        fetch("http://127.0.0.1:9/x.pth")
    assert one_line(error) == f"http://127.0.0.1:9/x.pth: Connection refused; {ELSEWHERE}"


def test_a_silent_server_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upernet.zoo.transfer, "TIMEOUT", 0.1)
    monkeypatch.setattr(upernet.zoo.transfer, "RETRIES", 0)
    site.gate = threading.Event()
    with pytest.raises(WorkError, match=r"no answer within 0.1 s after 0 of 1,024,000 bytes; the same command resumes"):
        fetch(f"{site.address}/mm/{NAME}")
    site.gate.set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the disk that is always full")
def test_a_full_disk_is_told(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    (cache / f"{NAME}.part").symlink_to("/dev/full")
    monkeypatch.setattr(upernet.zoo.transfer, "discard", lambda part: None)
    with pytest.raises(WorkError, match=r"No space left on device.*the same command resumes") as error:
        fetch(f"{site.address}/mm/{NAME}")
    assert f"{site.address}/mm/{NAME}" in one_line(error)


# --- two at once ----------------------------------------------------------------------------------------------------


def test_threads_share_one_download(site: Site, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.gate = threading.Event()
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(content(fetch(f"{site.address}/mm/{NAME}")))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    threads[0].join(0.2)
    site.gate.set()
    for thread in threads:
        thread.join()
    assert results == ["BODY"] * 3
    assert len(site.asked) == 1
    assert [p.name for p in cache.iterdir()] == [NAME]
    assert "waiting for another download" in capsys.readouterr().err


def test_processes_share_one_download(site: Site, cache: Path) -> None:
    site.gate = threading.Event()
    code = "import sys; from upernet.zoo.download import fetch; print(fetch(sys.argv[1]).stat().st_size)"
    address = f"{site.address}/mm/{NAME}"
    runs = [
        subprocess.Popen([sys.executable, "-c", code, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    threading.Timer(1.0, site.gate.set).start()
    assert [run.communicate()[0].strip() for run in runs] == [b"1024000"] * 2
    assert len(site.asked) == 1
    assert content(cache / NAME) == "BODY"


# --- the hub --------------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as fetching a repository takes."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[tuple[str, str, dict[str, str]]]] = []

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append((self.command, path, dict(self.headers)))
        headers = {"X-Repo-Commit": COMMIT}
        content: bytes | None = None
        if path in ("/api/models/o/n", "/api/models/o/n/revision/main", "/api/models/o/n/revision/v1"):
            siblings = [{"rfilename": name} for name in self.files]
            content = json.dumps({"id": "o/n", "sha": COMMIT, "siblings": siblings}).encode()
        elif path == f"/api/models/o/n/tree/{COMMIT}":
            tree = [{"type": "file", "path": k, "size": len(v), "oid": "0" * 40} for k, v in self.files.items()]
            content = json.dumps(tree).encode()
        elif path.startswith(f"/o/n/resolve/{COMMIT}/"):
            content = self.files.get(path.removeprefix(f"/o/n/resolve/{COMMIT}/"))
            headers["ETag"] = f'"{hashlib.sha256(content or b"").hexdigest()}"'
        self.send_response(200 if content is not None else 404)
        if content is None:
            headers["X-Error-Code"] = "RepoNotFound"
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content:
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text("hf_secret")
    Hub.files = {"config.json": b"{}", "model.safetensors": b"tensors", "pytorch_model.bin": b"pickle", "x.md": b"x"}
    Hub.asked.clear()
    server = Server(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_repository_of_the_hub(hub: str, capfd: pytest.CaptureFixture[str]) -> None:
    folder = fetch_hub("o/n", mirror=hub)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"config.json": b"{}", "model.safetensors": b"tensors"}
    assert fetch_model("hf://o/n@v1", mirror=f"{hub}/") == folder
    for _, _, headers in Hub.asked:
        lower = {k.lower(): v for k, v in headers.items()}
        assert "authorization" not in lower
        assert "torch" not in lower["user-agent"]
    assert capfd.readouterr().err == ""


def test_pickled_weights_only_where_there_are_no_others(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del Hub.files["model.safetensors"]
    monkeypatch.setenv("UPERNET_MIRROR", hub)
    folder = fetch_hub("o/n")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "pytorch_model.bin"]


def test_pickled_shards_are_fetched_with_their_index(hub: str) -> None:
    shards = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    Hub.files = {"config.json": b"{}", "pytorch_model.bin.index.json": json.dumps(index).encode()}
    Hub.files |= dict.fromkeys(shards, b"pickle") | {"optimizer.bin": b"x", "old/model.safetensors": b"x"}
    folder = fetch_hub("o/n", mirror=hub)
    found = {p.name for p in folder.iterdir() if p.is_file()}
    assert found == {"config.json", "pytorch_model.bin.index.json", *shards}
    assert [(folder / shard).read_bytes() for shard in shards] == [b"pickle"] * 2


@pytest.mark.parametrize("revision", ["..", "../../x", "a/../b", "/x", "a//b", "a\\b", "a b", "a\nb", ".x", "x."])
def test_a_revision_is_no_path(revision: str) -> None:
    with pytest.raises(UserError, match=r"is no revision; for example hf://o/n@main") as error:
        fetch_model(f"hf://o/n@{revision}")
    one_line(error)


def test_no_such_repository_is_told(hub: str) -> None:
    with pytest.raises(WorkError) as error:
        fetch_hub("o/missing", mirror=hub)
    line = one_line(error)
    assert line.startswith(f"hf://o/missing from {hub}: ")
    assert "404" in line
    assert "the same command resumes" in line


def test_no_hub_there_is_told(hub: str) -> None:
    with pytest.raises(WorkError) as error:
        fetch_hub("o/n", mirror="http://127.0.0.1:9")
    assert one_line(error) == f"hf://o/n from http://127.0.0.1:9: Connection refused; {ELSEWHERE}"


@pytest.mark.parametrize("address", ["hf://n", "hf://a/b/c", "hf://../x", "hf://o/n?x", "hf://"])
def test_what_is_no_repository_is_told(address: str) -> None:
    with pytest.raises(UserError, match=r"is no repository of the hub; for example hf://openmmlab/upernet-swin-tiny"):
        fetch_model(address)
