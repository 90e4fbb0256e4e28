"""Write install/hashes.txt: the sha256 of every file of every pinned release.

    .venv/bin/python -m install.hashes [--check]

The versions are those of install/constraints.txt, the files and hashes what the index of pip's
configuration (`index-url`, PIP_INDEX_URL) tells of them, over https; extra indexes are not asked.
`make setup` refuses a file with any other hash. `--check` asks nobody and writes nothing: are both
files of the same versions?
"""

import argparse
import ast
import base64
import json
import re
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
HASHES = Path(__file__).with_name("hashes.txt")
PUBLIC_INDEX = "https://pypi.org/simple"
# The index's answer in JSON (PEP 691), the only form that is read here.
JSON = "application/vnd.pypi.simple.v1+json"
HEADER = """\
# The sha256 of every file of each release in constraints.txt, for every platform, as the package
# index gives them. Made by `python -m install.hashes`: edit constraints.txt, not this.
"""


class HashesError(RuntimeError):
    """The hashes cannot be had; the message says which, why and what to do."""


def pins(text: str) -> dict[str, str]:
    """Return the version of each package in the text of constraints.txt, by name."""
    versions: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if not (found := re.fullmatch(r"([\w.-]+)==([\w.!+]+)", line)):
            raise HashesError(f"line {number} is {line!r}; allowed are NAME==VERSION and comments")
        versions[found[1]] = found[2]
    return versions


def file_version(filename: str) -> str:
    """Return the version in the name of a wheel or a source archive."""
    if filename.endswith(".whl"):
        return filename.split("-")[1]
    return re.sub(r"\.(tar\.gz|zip)$", "", filename).rpartition("-")[2]


def release_hashes(name: str, version: str, page: Mapping[str, Any]) -> list[str]:
    """Return the sha256 of each file of one release, in order, from the index's page of `name`."""
    files = [file for file in page["files"] if file_version(file["filename"]) == version]
    if not files:
        raise HashesError(f"the index has no file of {name}=={version}; is the version right?")
    for file in files:
        if not re.fullmatch("[0-9a-f]{64}", file["hashes"].get("sha256", "")):
            raise HashesError(
                f"the index gives no sha256 of {file['filename']}; use one that does, as in "
                f"PIP_INDEX_URL={PUBLIC_INDEX}"
            )
    return sorted(file["hashes"]["sha256"] for file in files)


def render(versions: Mapping[str, str], page_of: Callable[[str], Mapping[str, Any]]) -> str:
    """Return the text of hashes.txt for these pins, each looked up by `page_of`."""
    names = sorted(versions, key=str.lower)
    # The index is waited for, not computed with.
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(page_of, names))
    text = HEADER
    for name, page in zip(names, pages, strict=True):
        hashes = release_hashes(name, versions[name], page)
        lines = [f"{name}=={versions[name]}", *(f"    --hash=sha256:{value}" for value in hashes)]
        text += " \\\n".join(lines) + "\n"
    return text


def check(constraints: str, hashes: str) -> None:
    """Raise HashesError unless both texts have the same versions, the second one with hashes."""
    pinned = pins(constraints)
    hashed = dict(re.findall(r"^(\S+)==(\S+) \\\n    --hash=", hashes, re.MULTILINE))
    for name in sorted({*pinned, *hashed}):
        if pinned.get(name) != hashed.get(name):
            raise HashesError(
                f"{name} is {pinned.get(name, 'missing')} in {CONSTRAINTS.name} and "
                f"{hashed.get(name, 'missing')} in {HASHES.name}, which is to be made anew: "
                ".venv/bin/python -m install.hashes"
            )


def pip_settings(listing: str) -> dict[str, str]:
    """Return what `pip config list` prints as pip applies it: environment, install, global."""
    entries = dict(line.split("=", 1) for line in listing.splitlines() if "=" in line)
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for key, value in entries.items():
            if key.startswith(f"{section}."):
                settings[key.removeprefix(f"{section}.")] = str(ast.literal_eval(value))
    return settings


def index_reader(settings: Mapping[str, str]) -> Callable[[str], Mapping[str, Any]]:
    """Return a function that fetches the page of a package from the index that pip uses."""
    index = urlsplit(settings.get("index-url", PUBLIC_INDEX))
    host = index.netloc.rpartition("@")[2]
    if index.scheme != "https":
        raise HashesError(
            f"pip's index is at {index.scheme}://{host}, and hashes are taken over https alone; "
            f"use another, as in PIP_INDEX_URL={PUBLIC_INDEX}"
        )
    context = ssl.create_default_context(cafile=settings.get("cert"))

    def page_of(name: str) -> Mapping[str, Any]:
        folder = f"{index.path.rstrip('/')}/{re.sub(r'[-_.]+', '-', name).lower()}/"
        request = urllib.request.Request(urlunsplit(("https", host, folder, "", "")))
        request.add_header("Accept", JSON)
        if index.username:
            secret = f"{unquote(index.username)}:{unquote(index.password or '')}".encode()
            basic = f"Basic {base64.b64encode(secret).decode()}"
            request.add_unredirected_header("Authorization", basic)
        for pause in (1, 5, 0):
            try:
                with urllib.request.urlopen(request, timeout=180, context=context) as reply:
                    if reply.headers.get_content_type() == JSON:
                        return json.load(reply)
                    break
            except (OSError, ValueError) as error:
                # Of so many requests one may meet a name server that is busy; a refusal is final.
                if not pause or isinstance(error, urllib.error.HTTPError):
                    raise HashesError(f"{host} does not tell of {name}: {error}") from error
                time.sleep(pause)
        raise HashesError(
            f"{host} does not answer in JSON (PEP 691); use an index that does, as in "
            f"PIP_INDEX_URL={PUBLIC_INDEX}"
        )

    return page_of


def write() -> None:
    """Write hashes.txt, whole or not at all."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    text = render(pins(CONSTRAINTS.read_text()), index_reader(pip_settings(listing)))
    unfinished = HASHES.with_suffix(".unfinished")
    unfinished.write_text(text)
    unfinished.replace(HASHES)


def main() -> None:
    """Write or check hashes.txt, or leave with one message and the status 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare the versions")
    try:
        if parser.parse_args().check:
            check(CONSTRAINTS.read_text(), HASHES.read_text())
        else:
            write()
    except HashesError as error:
        sys.exit(f"install/hashes.py: {error}")


if __name__ == "__main__":
    main()
