"""The pages in a real browser, Chromium without a display, opened from disk."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from report import synthetic
from report.parsed_page import Page, Table

from dlbench.report import site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium"),
]

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Page]:
    """``browse(address)``: the page after its scripts have run."""
    profile = tmp_path_factory.mktemp("profile")

    def opened(address: str) -> Page:
        command = [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu",
            f"--user-data-dir={profile}", "--virtual-time-budget=10000",
            "--enable-logging=stderr", "--dump-dom", address,
        ]  # fmt: skip
        ended = subprocess.run(command, capture_output=True, text=True, timeout=180)
        said = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
        if said:  # errors of scripts, and whatever the page's policy has blocked
            raise AssertionError("\n".join(said))
        return Page(ended.stdout)

    return opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    records = list(synthetic.several(launches=5, ranks=(1, 4)))
    site.build(synthetic.write_launches(folder, records), folder / "report")
    return folder / "report"


def shown(table: Table) -> list[list[str]]:
    """Rows that are not hidden."""
    return [row for row, hidden in zip(table.rows, table.hidden, strict=True) if not hidden]


def test_nothing_of_a_record_runs(report: Path, browse: Open) -> None:
    for path in sorted(report.glob("*.html")):
        page = browse(path.as_uri())
        assert not page.all("img")
        assert page.all("html", **{"class": "scripted"}), path.name


def test_what_gets_past_escaping_is_still_not_run(report: Path, browse: Open) -> None:
    broken = report / "index-broken.html"
    text = (report / "index.html").read_text()
    broken.write_text(text.replace("<h1>", "<script>document.title = 'ran'</script><h1>"))
    with pytest.raises(AssertionError, match="Content Security Policy"):
        browse(broken.as_uri())
    broken.unlink()


def test_buttons(report: Path, browse: Open) -> None:
    """Pressed by a script of the test, which the page's policy lets in as a file of the folder."""
    (report / "presses.js").write_text("""
        window.addEventListener("load", () => {
        const press = (element) => element.click();
        const head = document.querySelector('#content table.filtered [data-key="throughput"]');
        press(head.querySelector("button"));
        const after = [head.getAttribute("aria-sort"), location.hash];
        press(head.querySelector("button"));
        after.push(head.getAttribute("aria-sort"));
        for (let n = 0; n < 2; n++) press(document.getElementById("theme"));
        after.push(document.documentElement.dataset.theme);
        after.push(getComputedStyle(document.body).backgroundColor);
        document.body.dataset.after = after.join(" ");
        });
    """)
    pressed = report / "index-pressed.html"
    text = (report / "index.html").read_text()
    pressed.write_text(text.replace("</head>", '<script src="presses.js" defer></script></head>'))
    (body,) = browse(pressed.as_uri()).all("body")
    assert body["data-after"] == (
        "descending #sort=throughput%3Adescending ascending dark rgb(20, 20, 19)"
    )
    pressed.unlink()
    (report / "presses.js").unlink()


def test_the_address_filters_and_sorts(report: Path, browse: Open) -> None:
    index = (report / "index.html").as_uri()
    everything = browse(index).tables[1]
    page = browse(f"{index}#q=vaihingen+a100&ranks=4+%C3%97+16&sort=throughput%3Adescending")
    table = page.tables[1]
    rows = shown(table)
    speed = [head.split()[0] for head in table.heads].index("Throughput")
    rates = [float(row[speed].replace(",", "")) for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert len(rows) == 2 * 2  # setups × states of the code
    assert all("A100" in row[1] and "vaihingen" in row[0] for row in rows)
    assert len(shown(everything)) == len(everything.rows) == 4 * 2 * 4
    assert "4 of 32 rows" in page.text
    sorted_by = [given for given in page.all("th") if given.get("aria-sort") == "descending"]
    assert [given["data-key"] for given in sorted_by] == ["throughput"]


def test_two_setups_are_compared(report: Path, browse: Open) -> None:
    compare = (report / "compare.html").as_uri()
    one, other = "a100-driver-535@bbbbbbb", "a100-driver-550@bbbbbbb"
    page = browse(f"{compare}#a={one}&b={other}")
    table = page.tables[0]
    assert table.caption.startswith("Throughput: ")
    ratio = table.heads.index("B / A")
    # 410 / 400, times what launches differ by.
    assert all(float(row[ratio]) == pytest.approx(1.025, abs=0.012) for row in table.rows)
    measures = [table.caption.split(":")[0] for table in page.tables]
    assert measures[1:4] == ["Time to the first step", "Energy", "Peak memory, host rss"]
    assert any(row[0] == "gpu.driver" for row in page.tables[-1].rows)
    assert "python -m dlbench.report compare" in page.text
    # Not computed ahead: different states of the code on different setups.
    page = browse(f"{compare}#a=h100-driver-550@aaaaaaa&b=a100-driver-550@bbbbbbb")
    assert "no workload in common" in page.text  # other precision
    page = browse(f"{compare}#a=a100-driver-535@aaaaaaa&b={other}")
    assert "no verdict yet" in page.text
    ratio = page.tables[0].heads.index("B / A")
    expected = pytest.approx(1.025 * 1.02, abs=0.012)
    assert all(float(row[ratio]) == expected for row in page.tables[0].rows)


def test_a_thousand_files(tmp_path: Path, browse: Open, capsys: pytest.CaptureFixture[str]) -> None:
    setups = [(f"machine {n} driver {500 + n}", 300.0 + n) for n in range(20)]
    records = list(synthetic.several(setups, versions=2, launches=5))
    assert len(records) == 1000
    paths = [tmp_path / f"{n:04d}.json" for n in range(len(records))]
    for path, record in zip(paths, records, strict=True):
        path.write_text(record.model_dump_json())
    started = time.monotonic()
    site.build(paths, tmp_path / "report")
    built = time.monotonic() - started
    times = {}
    index = tmp_path / "report" / "index.html"
    blank = tmp_path / "blank.html"
    blank.write_text("<!DOCTYPE html><html><head></head><body></body></html>")
    for name, address in {"browser alone": blank, "index": index}.items():
        started = time.monotonic()
        browse(address.as_uri())
        times[name] = time.monotonic() - started
    opened = times["index"] - times["browser alone"]
    size = sum(path.stat().st_size for path in (tmp_path / "report").iterdir()) / 2**20
    with capsys.disabled():
        print(f"\n1,000 files: built in {built:.1f} s, {size:.1f} MiB; opened in {opened:.2f} s")
    assert built < 30
    assert opened < 2
