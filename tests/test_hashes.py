"""Hashes of the pinned releases: complete, taken from the index as it gives them, and enforced."""

import os
import re
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from install import hashes
from install.hashes import CONSTRAINTS, HASHES, HashesError

ROOT = HASHES.parent.parent
ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


def test_every_pin_has_its_hashes_and_nothing_else_has() -> None:
    releases = re.findall(
        r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n",
        HASHES.read_text(),
        re.MULTILINE,
    )
    pinned = hashes.pins(CONSTRAINTS.read_text())
    assert {name: version for name, version, _ in releases} == pinned
    assert len(releases) == len(pinned)
    # Each line belongs to one of these releases, or to the header.
    lines = [line for line in HASHES.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == sum(1 + found.count("--hash") for *_, found in releases)


def test_versions_that_differ_are_named_before_anything_is_installed() -> None:
    locked = (
        f"keras==3.15.1 \\\n    --hash=sha256:{ONE}\nnumpy==2.4.6 \\\n    --hash=sha256:{TWO}\n"
    )
    hashes.check("# why\nnumpy==2.4.6\n\nkeras==3.15.1\n", locked)
    for constraints, message in {
        "keras==3.15.1\nnumpy==2.4.7\n": "numpy is 2.4.7 in constraints.txt and 2.4.6 in hashes",
        "keras==3.15.1\n": "numpy is missing in constraints.txt and 2.4.6 in hashes.txt",
        "h5py==3.14.0\nkeras==3.15.1\nnumpy==2.4.6\n": "h5py is 3.14.0 in .* and missing in hashes",
    }.items():
        with pytest.raises(HashesError, match=message):
            hashes.check(constraints, locked)


def test_a_pin_that_is_none_is_named() -> None:
    assert hashes.pins("# why\n\nnumpy==2.4.6\nboolean.py==5.0\n") == {
        "numpy": "2.4.6",
        "boolean.py": "5.0",
    }
    with pytest.raises(HashesError, match=r"line 2 is 'numpy>=2'; allowed are NAME==VERSION"):
        hashes.pins("keras==3.15.1\nnumpy>=2\n")


def page(**files: str) -> dict[str, Any]:
    """A package's page as PEP 691 has it, with the files that are named, and their sha256."""
    return {
        "files": [
            {"filename": name, "hashes": {"sha256": value} if value else {}}
            for name, value in files.items()
        ]
    }


PAGES = {
    "one-two": page(
        **{
            "one_two-1.0-cp311-cp311-manylinux_2_17_x86_64.whl": TWO,
            "one_two-1.0-1-cp311-cp311-win_amd64.whl": THREE,
            "one-two-1.0.tar.gz": ONE,
            "one-two-1.0.1.tar.gz": "4" * 64,
            "one_two-11.0-py3-none-any.whl": "5" * 64,
        }
    ),
    "Three": page(**{"three-2.0.post1.zip": ONE}),
    "bare": page(**{"bare-1-py3-none-any.whl": ""}),
}


def test_a_release_has_the_hashes_of_all_its_files() -> None:
    text = hashes.render({"Three": "2.0.post1", "one-two": "1.0"}, PAGES.__getitem__)
    assert text.removeprefix(hashes.HEADER) == (
        f"one-two==1.0 \\\n    --hash=sha256:{ONE} \\\n    --hash=sha256:{TWO} \\\n"
        f"    --hash=sha256:{THREE}\nThree==2.0.post1 \\\n    --hash=sha256:{ONE}\n"
    )


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("one-two", "2.0", "the index has no file of one-two==2.0"),
        ("bare", "1", "the index gives no sha256 of bare-1-py3-none-any.whl"),
    ],
)
def test_a_release_without_hashes_is_an_error(name: str, version: str, message: str) -> None:
    with pytest.raises(HashesError, match=message):
        hashes.render({name: version}, PAGES.__getitem__)


def test_the_index_is_the_one_that_pip_uses() -> None:
    listing = "global.index-url='https://g/simple'\nglobal.cert='/c.pem'\n"
    assert hashes.pip_settings(listing) == {"index-url": "https://g/simple", "cert": "/c.pem"}
    listing = ":env:.index-url='https://e/simple'\ninstall.index-url='https://i/simple'\n" + listing
    assert hashes.pip_settings(listing)["index-url"] == "https://e/simple"
    with pytest.raises(HashesError, match="pip's index is at http://mirror, and hashes are taken"):
        hashes.index_reader({"index-url": "http://user:secret@mirror/simple"})


def make_wheel(folder: Path, name: str, version: str, requires: str = "") -> str:
    """Write a wheel without content, and return its sha256."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    parts = {
        "METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        "WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for part, text in parts.items():
            archive.writestr(f"{name}-{version}.dist-info/{part}", text)
    return sha256(wheel.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("the same", None),
        ("another file", r"DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE[^$]*below==2\.0"),
        ("a pin without a hash", "--require-hashes mode"),
    ],
)
def test_pip_installs_what_has_its_hash_alone(
    tmp_path: Path, found: str, message: str | None
) -> None:
    # As in the set-up: requirements without versions, hashes as constraints, a dependency unnamed.
    above = make_wheel(tmp_path, "above", "1.0", requires="below>=1")
    below = make_wheel(tmp_path, "below", "2.0")
    if found == "another file":
        with zipfile.ZipFile(tmp_path / "below-2.0-py3-none-any.whl", "a") as archive:
            archive.writestr("below.py", "print('not what was pinned')\n")
    lines = [f"above==1.0 --hash=sha256:{above}", f"below==2.0 --hash=sha256:{below}"]
    lines = lines[:1] if found == "a pin without a hash" else lines
    (tmp_path / "hashes.txt").write_text("\n".join(lines))
    (tmp_path / "requirements.txt").write_text("above==1.*\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--find-links", "."]
    pinned = ["--require-hashes", "-c", "hashes.txt"]
    result = subprocess.run(
        [*pip, *pinned, "-r", "requirements.txt"],
        env={**environ, "PIP_CONFIG_FILE": os.devnull},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    if message is None:
        assert "Would install above-1.0 below-2.0" in result.stdout, result.stderr
    else:
        assert result.returncode == 1
        assert re.search(message, result.stdout + result.stderr), result.stdout + result.stderr


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What make would do from nothing; it does none of it."""
    command = ["make", "--dry-run", "--always-make", *arguments, "setup", "audit"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_make_has_every_package_checked(accelerator: str) -> None:
    result = plan(f"ACCELERATOR={accelerator}", "CHECK_HASHES=on")
    installing = re.findall(r" -m pip [^&]*? install [^&;]*", result.stdout)
    packages = [command for command in installing if "-e ." not in command]
    assert len(packages) == 4  # pip itself, setuptools, the requirements, pip-audit
    assert all("--require-hashes" in command for command in packages)
    # pip's own lines, for a pip that knows no hashes in constraints.
    extract = re.search(r"sed -n '[^']*' \S+", result.stdout)
    assert extract
    lines = subprocess.check_output(extract[0], shell=True, cwd=ROOT, text=True).splitlines()
    version = hashes.pins(CONSTRAINTS.read_text())["pip"]
    assert lines[0] == f"pip=={version} \\"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["--hash=sha256"] * 2


def test_unchecked_packages_are_asked_for_and_loud() -> None:
    result = plan("CHECK_HASHES=off")
    assert "--require-hashes" not in result.stdout
    assert f"-c {CONSTRAINTS.relative_to(ROOT)}" in result.stdout
    assert "NO HASH IS CHECKED" in result.stderr
    assert "NO HASH" not in plan("CHECK_HASHES=on").stderr
    refused = plan("CHECK_HASHES=no")
    assert refused.returncode == 2
    assert "CHECK_HASHES is 'no'; allowed are on and off" in refused.stderr
