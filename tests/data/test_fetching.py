"""Downloads from a server on 127.0.0.1 that breaks off, changes its files, or means harm."""

from __future__ import annotations

import hashlib
import io
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from dlbench import locks
from dlbench.data import DATASETS, DataError, fetching, kind_of
from dlbench.data.__main__ import main
from dlbench.data.camvid import CamVid
from dlbench.data.fetching import Download, fetch

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves `files`; the answers to come break off after ``cuts`` bytes, each once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges = True
        self.versions = True
        self.asked: list[str | None] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        whole = server.files.get(self.path[1:])
        if whole is None:
            self.send_error(404)
            return
        version = f'"{hashlib.md5(whole).hexdigest()}"' if server.versions else ""
        start = 0
        if asked and server.ranges and self.headers.get("If-Range", version) == version:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(whole):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(whole)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        else:
            self.send_response(200)
        if version:
            self.send_header("ETag", version)
        body = whole[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "WAIT", 0.0)
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.shutdown()


def archived(files: dict[str, bytes], comment: str = "") -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.comment = comment.encode()
    return memory.getvalue()


def kind(*parts: Download) -> type[CamVid]:
    class Fetched(CamVid):
        downloads: ClassVar[dict[str, Download]] = {str(n): part for n, part in enumerate(parts)}

    return Fetched


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_file_that_breaks_off_is_resumed(server: Server, tmp_path: Path) -> None:
    server.files["points.csv"] = CONTENT
    server.cuts = [3 * fetching.CHUNK, 2 * fetching.CHUNK + 7]
    told: list[tuple[int, int | None]] = []
    download = Download(server.url("points.csv"), "labels", checksum=sha256(CONTENT))
    fetch(kind(download), tmp_path / "out", progress=lambda *said: told.append(said))
    assert (tmp_path / "out/labels/points.csv").read_bytes() == CONTENT
    assert server.asked == [None, *(f"bytes={n * fetching.CHUNK}-" for n in (3, 5))]
    assert told[-1] == (300_000, 300_000)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["labels"]


def test_a_repeated_command_goes_on(server: Server, tmp_path: Path) -> None:
    server.files["points.csv"] = CONTENT
    server.cuts = [3 * fetching.CHUNK] + [0] * (fetching.TRIES - 1)
    download = kind(Download(server.url("points.csv")))
    with pytest.raises(DataError, match=r"cannot fetch http.*repeat the command, which goes on"):
        fetch(download, tmp_path)
    assert not (tmp_path / "points.csv").exists()
    fetch(download, tmp_path)
    assert server.asked[-1] == f"bytes={3 * fetching.CHUNK}-"
    assert (tmp_path / "points.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("trait", ["ranges", "versions"])
def test_a_server_that_cannot_resume_begins_anew(
    server: Server, tmp_path: Path, trait: str
) -> None:
    setattr(server, trait, False)
    server.files["points.csv"] = CONTENT
    server.cuts = [3 * fetching.CHUNK]
    fetch(kind(Download(server.url("points.csv"))), tmp_path)
    assert (tmp_path / "points.csv").read_bytes() == CONTENT
    # Of a file that tells no version, what is there may be of another.
    assert server.asked == [None, f"bytes={3 * fetching.CHUNK}-" if trait == "ranges" else None]


def test_a_file_that_changes_meanwhile_is_not_pieced_together(
    server: Server, tmp_path: Path
) -> None:
    server.files["points.csv"] = CONTENT
    server.cuts = [3 * fetching.CHUNK] + [0] * (fetching.TRIES - 1)
    with pytest.raises(DataError):
        fetch(kind(Download(server.url("points.csv"))), tmp_path)
    server.files["points.csv"] = changed = CONTENT[::-1]
    fetch(kind(Download(server.url("points.csv"))), tmp_path)
    assert (tmp_path / "points.csv").read_bytes() == changed


def test_what_is_whole_already_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    server.files["points.csv"] = CONTENT
    unfinished = tmp_path / fetching.UNFINISHED / "points.csv"
    unfinished.mkdir(parents=True)
    (unfinished / "points.csv.part").write_bytes(CONTENT)
    fetch(kind(Download(server.url("points.csv"), checksum=sha256(CONTENT))), tmp_path)
    assert server.asked == ["bytes=300000-"]
    assert (tmp_path / "points.csv").read_bytes() == CONTENT


def test_a_wrong_checksum(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = archived({"x/a.txt": b"evil"})
    download = Download(server.url("a.zip"), checksum=sha256(b"good"))
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.zip gave has another checksum than sha256:"):
            fetch(kind(download), tmp_path)
    assert server.asked == [None, None], "what is wrong is not kept"
    assert [path.name for path in tmp_path.iterdir()] == [fetching.UNFINISHED]


def test_an_archive_is_unpacked_where_it_belongs(server: Server, tmp_path: Path) -> None:
    server.files["a.zip"] = archived(
        {"repo/CamVid/train/a.png": b"a", "repo/CamVid/train.txt": b"t", "repo/README": b"no"},
        comment="c0ffee",
    )
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/mine.txt").write_text("mine")
    download = Download(server.url("a.zip"), "labels", inside="repo/CamVid", comment="c0ffee")
    fetch(kind(download), tmp_path)
    held = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert held == {"labels/mine.txt", "labels/train/a.png", "labels/train.txt"}
    with pytest.raises(DataError, match=r"labels/train is in the way"):
        fetch(kind(download), tmp_path)
    assert (tmp_path / "labels/train.txt").read_bytes() == b"t"


@pytest.mark.parametrize(
    ("download", "reason"),
    [
        ({"comment": "c0ffee"}, "is of the commit '', expected is c0ffee"),
        ({"inside": "elsewhere"}, "holds nothing in 'elsewhere'"),
    ],
)
def test_an_archive_of_something_else(
    server: Server, tmp_path: Path, download: dict[str, str], reason: str
) -> None:
    server.files["a.zip"] = archived({"repo/a.txt": b"a"})
    with pytest.raises(DataError, match=reason):
        fetch(kind(Download(server.url("a.zip"), **download)), tmp_path)


HOSTILE = ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "a\\..\\..\\evil", "..", "a/b\0c"]


@pytest.mark.parametrize("name", [*HOSTILE, "link", "device", "twice"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_archives_write_nothing(server: Server, tmp_path: Path, name: str) -> None:
    member = zipfile.ZipInfo("a/" + name if name in ("link", "device", "twice") else "x")
    kinds = {"link": stat.S_IFLNK, "device": stat.S_IFBLK}
    member.external_attr = (kinds.get(name, stat.S_IFREG) | 0o777) << 16
    if name in HOSTILE:
        member.filename = name  # set afterwards: the class mends what it is given
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("a/good.txt", b"good")
        archive.writestr(member, b"/etc")
        if name == "twice":
            archive.writestr(member, b"/etc")
    server.files["a.zip"] = memory.getvalue()
    before = set(tmp_path.parent.rglob("*"))
    out = tmp_path / "deep/out"
    with pytest.raises(DataError, match=r"a\.zip holds .*(leaves its folder|link or dev|twice)"):
        fetch(kind(Download(server.url("a.zip"))), out)
    written = set(tmp_path.parent.rglob("*")) - before
    assert all(out / fetching.UNFINISHED in (p, *p.parents) or p in out.parents or p == out
               for p in written)  # fmt: skip
    assert not [p for p in written if p.is_file() and p.read_bytes() in (b"good", b"/etc")]
    assert not Path("/tmp/evil").exists()


def test_a_damaged_archive_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    whole = archived({"a.txt": CONTENT})
    damaged = bytearray(whole)
    damaged[1000] ^= 1
    for broken in (bytes(damaged), whole[:-100], b"<html>not here</html>"):
        server.files["a.zip"] = broken
        with pytest.raises(DataError, match="gave no whole ZIP archive"):
            fetch(kind(Download(server.url("a.zip"))), tmp_path)
    server.files["a.zip"] = whole
    fetch(kind(Download(server.url("a.zip"))), tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == CONTENT


def test_addresses_that_do_not_answer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.zip: 404 Not Found; .* or get it from https://git"):
        fetch(kind(Download(server.url("gone.zip"))), tmp_path)
    assert len(server.asked) == 1, "what is not there is not asked for again"
    server.server_close()
    with pytest.raises(DataError, match=r"cannot fetch http://127\.0\.0\.1"):
        fetch(kind(Download(server.url("gone.zip"))), tmp_path)


def test_parts_are_chosen(server: Server, tmp_path: Path) -> None:
    server.files |= {"a.csv": b"a", "b.csv": b"b"}
    parts = kind(Download(server.url("a.csv")), Download(server.url("b.csv")))
    with pytest.raises(DataError, match="comes in parts, 0, 1; choose one with part="):
        fetch(parts, tmp_path)
    with pytest.raises(DataError, match="has no part '2'; its parts: 0, 1"):
        fetch(parts, tmp_path, "2")
    server.cuts = [0] * fetching.TRIES
    with pytest.raises(DataError, match="cannot fetch"):
        fetch(parts, tmp_path, "0")
    fetch(parts, tmp_path, "1")
    assert (tmp_path / fetching.UNFINISHED / "a.csv").is_dir(), "begun, and not given up"
    fetch(parts, tmp_path, "0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file; choose a folder"):
        fetch(parts, tmp_path / "file", "0")


def test_two_at_once(server: Server, tmp_path: Path) -> None:
    server.files["a.csv"] = b"a"
    unfinished = tmp_path / fetching.UNFINISHED / "a.csv"
    unfinished.mkdir(parents=True)
    with (
        locks.alone(unfinished / "lock", DataError("the test is refused")),
        pytest.raises(DataError, match=r"another process is fetching a\.csv"),
    ):
        fetch(kind(Download(server.url("a.csv"))), tmp_path)


def test_the_command(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.files["a.zip"] = archived({"train.txt": b"t"})
    found = kind(Download(server.url("a.zip")))
    monkeypatch.setattr("dlbench.data.camvid.CamVid", found)
    assert main(["fetch", "camvid", str(tmp_path / "out")]) == 0
    assert f"python -m dlbench.data check camvid {tmp_path / 'out'}" in capsys.readouterr().out
    assert main(["fetch", "atlantis", str(tmp_path)]) == 2
    assert "unknown data set 'atlantis'" in capsys.readouterr().err
    assert main(["fetch", "vaihingen", str(tmp_path / "none")]) == 2
    told = capsys.readouterr().err
    assert "vaihingen cannot be fetched (ISPRS benchmark terms" in told
    assert "isprs.org" in told and "top/top_mosaic_09cm_area1.tif" in told
    assert not (tmp_path / "none").exists()


def test_addresses_of_all_data_sets() -> None:
    for name in DATASETS:
        for download in kind_of(name).downloads.values():
            assert download.url.startswith("https://")
            assert download.name.lower().endswith((".zip", ".csv"))
