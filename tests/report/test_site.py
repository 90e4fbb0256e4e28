"""The report's pages: what they say, that they hold together, and that no record runs anything."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest
from report import synthetic
from report.parsed_page import Page
from report.synthetic import HOSTILE, SPEEDS

from dlbench.errors import UserError
from dlbench.report import site, tables
from dlbench.report.site import charts, markup
from dlbench.report.site.archive import slugs
from dlbench.report.site.sorting import archive
from dlbench.report.site.trends import STRONG, WEAK, curves


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    records = list(synthetic.several(launches=5, ranks=(1, 4)))
    paths = [synthetic.write_session(folder / f"launch{n}.json", records[n::5]) for n in range(5)]
    site.build(paths, folder / "report")
    return folder / "report"


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[str, Page]:
    return {path.name: Page(path.read_text()) for path in built.glob("*.html")}


def test_there_is_a_page_for_everything(pages: dict[str, Page]) -> None:
    kinds = [name.split("-")[0].removesuffix(".html") for name in pages]
    assert sorted(set(kinds)) == ["compare", "downloads", "index", "setup", "workload", "workloads"]
    assert kinds.count("setup") == len(SPEEDS) + 1
    # Three workloads, in the precisions of the A100s and of the H100.
    assert kinds.count("workload") == 6


def test_links_lead_somewhere_and_nothing_leaves_the_folder(
    built: Path, pages: dict[str, Page]
) -> None:
    for name, page in pages.items():
        ids = {given["id"] for _, given in page.elements if "id" in given}
        assert len(ids) == len([given for _, given in page.elements if "id" in given])
        for tag, given in page.elements:
            for attribute in ("href", "src"):
                target = given.get(attribute)
                if target is None:
                    continue
                file, _, anchor = unquote(target).partition("#")
                assert ":" not in file and not file.startswith("/"), (name, target)
                if file:
                    assert (built / file).is_file(), (name, target)
                if anchor and not file:
                    assert anchor in ids, (name, target)
                assert tag in ("a", "link", "script"), (name, tag)
    for path in built.iterdir():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg\")", path.read_text()), path.name


def test_what_a_record_says_is_text_everywhere(built: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert "alert(1)" not in "".join(page.data.get("", ""))
        assert not page.all("img"), name
        scripts = page.all("script")
        assert {s.get("src") for s in scripts} <= {None, "theme.js", "table.js", "compare.js"}
        assert all("src" in s or s.get("type") == "application/json" for s in scripts)
        assert not [given for _, given in page.elements if any(k.startswith("on") for k in given)]
        policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
        assert "unsafe" not in str(policy[0]["content"]) and "default-src 'none'" in str(policy)
    assert any(HOSTILE in row[0] for row in pages["index.html"].tables[0].rows)
    embedded = json.loads(pages["compare.html"].data["comparison"])
    assert any(HOSTILE in one["label"] for one in embedded["subjects"])
    assert "<" not in pages["compare.html"].data["comparison"]
    assert "<script" not in (built / "summary.md").read_text().replace("\\<", "")


def test_tables_are_named_and_headed(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        for table in page.tables:
            assert table.caption, name
            assert set(table.scopes) == {"col", "row"}
            assert table.buttons == len(table.heads)
            assert {len(row) for row in table.rows} == {len(table.heads)}
        assert len(page.all("h1")) == 1 and page.all("html", lang="en")
        assert page.all("a", href="#content") and page.all("main", id="content")


def test_figures_in_the_archive_are_those_of_the_frame(built: Path, pages: dict[str, Page]) -> None:
    frame = pd.read_csv(built / "results.csv")
    assert len(frame) == 4 * 2 * 4 * 5
    table = pages["index.html"].tables[1]
    assert len(table.rows) == 4 * 2 * 4
    heads = [" ".join(head.split()) for head in table.heads]
    at = {name: heads.index(name) for name in heads}
    row = next(
        row
        for row in table.rows
        if row[at["Setup"]] == "A100 driver 550" and row[at["Ranks × batch"]] == "4 × 16"
    )
    chosen = frame[
        (frame.setup == "A100 driver 550")
        & (frame.ranks == 4)
        & frame.commit.str.startswith(row[at["Code"]])
    ]
    assert row[at["Throughput samples/s"]] == f"{chosen.throughput.median():,.0f}"
    low, high = chosen.throughput.quantile([0.25, 0.75])
    assert row[at["IQR %"]] == f"{100 * (high - low) / chosen.throughput.median():.1f}"
    assert row[at["Launches"]] == "5"
    whole = json.loads((built / "results.json").read_text())
    assert [one["throughput"] for one in whole] == pytest.approx(frame.throughput.tolist())
    assert "record" not in whole[0] and whole[0]["created"].startswith("2026-03-01T09:00")


def test_charts_have_words_and_numbers(pages: dict[str, Page]) -> None:
    page = pages["workload-train-segnet-vaihingen-float32-128x128x3.html"]
    drawings = page.all("svg", role="img")
    names = {given.get("id") for _, given in page.elements}
    assert all(set(str(one["aria-labelledby"]).split()) <= names for one in drawings)
    captions = [table.caption for table in page.tables]
    assert captions == [
        "Throughput",
        "Scaling over ranks",
        "Where a step's time goes",
        "Peak memory, host rss",
        "Quality against time: mean_iou",
        "History",
    ]
    assert "T(n) / T(n₀) × n₀ / n" in page.text
    # Every launch of the newest code is a dot of the first chart.
    dots = [given for given in page.all("svg") if given.get("class") == "dot"]
    assert len(dots) >= 3 * 2 * 5


def test_scaling_is_not_clamped_and_knows_weak_from_strong() -> None:
    rates = {(1, 32): 100.0, (2, 32): 210.0, (4, 32): 360.0, (2, 16): 150.0}
    frame = pd.DataFrame(
        [
            {"file": "f", "workload": "w", "precision": "float32", "mode": "train", "setup": "s"}
            | {"ranks": n, "batch_per_rank": batch, "throughput": rate, "shape": None}
            | {"model": None, "data": None, "fingerprint": "f"}
            for (n, batch), rate in rates.items()
        ]
    )
    weak, strong = sorted(curves(archive(frame).groups), key=lambda curve: curve.kind == STRONG)
    assert (weak.kind, weak.batch, strong.batch) == (WEAK, 32, 32)
    assert [middle for _, _, middle in weak.efficiencies()] == pytest.approx([1.0, 1.05, 0.9])
    assert [middle for _, _, middle in strong.efficiencies()] == pytest.approx([1.0, 0.75])


def test_places_in_a_chart() -> None:
    scale = charts.Scale([10.0, 20.0], 2, 98)
    assert scale(15.0) == pytest.approx(50)
    assert 2 < scale(10.0) < scale(20.0) < 98
    names = [name for _, name in charts.Scale([0.1, 0.3], 0, 1).ticks()]
    assert names == ["0.10", "0.15", "0.20", "0.25", "0.30"]
    assert [name for _, name in charts.Scale([900, 4100], 0, 1).ticks(3)] == ["2,000", "4,000"]
    assert charts.Scale([5.0], 0, 100)(5.0) == 50  # a single value has no extent
    assert charts.Scale([0.0, 0.0], 0, 100)(0.0) == 50


def test_numbers_are_short() -> None:
    told = {0.0: "0", 3.14159: "3.142", 31.4159: "31.42", 314.159: "314.2", 31415.9: "31,416"}
    assert {value: markup.digits(value) for value in told} == told
    assert markup.digits(0.0314159) == "0.0314" and markup.digits(3.1e-5) == "3.1e-05"


def test_names_for_files() -> None:
    assert slugs(["A b", "a-B", "../../etc/passwd", "", "日本", "x" * 300]) == [
        "a-b", "a-b-2", "etc-passwd", "unnamed", "unnamed-2", "x" * 60,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("quality", "shown"),
    [
        ({"components": {"vx": {"rmse": 0.9}}, "rmse": 0.5, "best_epoch": 3}, "0.5000 rmse"),
        ({"best_epoch": 3, "training_size": {"mean_iou_all_classes": 0.7}}, "0.7000 mean iou"),
        # The losses of a benchmark's first steps say nothing of how good a network is.
        ({"first_loss": 1.9, "mean_loss": 1.7}, None),
    ],
)
def test_the_score_of_all_stands_for_a_launch(
    tmp_path: Path, quality: dict[str, Any], shown: str | None
) -> None:
    measured = synthetic.record("node", 100.0, "train/segnet/vaihingen", 1, 0, 0, 1)
    records = [measured.model_copy(update={"quality": quality})]
    site.build(synthetic.write_launches(tmp_path, records), tmp_path / "report")
    workloads = Page((tmp_path / "report/index.html").read_text()).tables[-1]
    # A column that no row has anything in is left out.
    cells = dict(zip(workloads.heads, workloads.rows[0], strict=True))
    assert cells.get("Quality") == shown


def test_what_casts_doubt_on_a_launch_is_shown(tmp_path: Path) -> None:
    records = [
        synthetic.record("node", 100.0, "train/segnet/vaihingen", 2, 0, launch, seed)
        for launch, seed in enumerate((49, 50, 51))  # the second is throttled
    ]
    site.build(synthetic.write_launches(tmp_path, records), tmp_path / "report")
    (path,) = (tmp_path / "report").glob("setup-*.html")
    workloads, launches, _ = Page(path.read_text()).tables
    assert workloads.rows[0][workloads.heads.index("Flags")] == "clocks lowered in 1"
    flags = [row[launches.heads.index("Flags")] for row in launches.rows]
    assert flags == ["–", "clocks lowered", "–"]


def test_launches_that_are_no_repeats_are_marked(tmp_path: Path) -> None:
    records = [
        synthetic.record("node", 100.0, "train/segnet/vaihingen", 2, 0, launch, 1).model_copy(
            update={"configuration": {"model": {"options": {"width": width}}, "seed": launch}}
        )
        for launch, width in enumerate((0.5, 0.5, 1.0))
    ]
    (group,) = archive(tables.load(synthetic.write_launches(tmp_path, records))).groups
    assert group.flags == "no repeats: model.options.width differs"
    (group,) = archive(tables.load(synthetic.write_launches(tmp_path, records[:2]))).groups
    assert group.flags == ""


def test_an_equal_name_of_another_machine_is_told_apart(tmp_path: Path) -> None:
    one = synthetic.record("node", 100.0, "train/segnet/vaihingen", 1, 0, 0, 1)
    other = one.model_copy(update={"setup": one.setup.model_copy(update={"fingerprint": "f" * 16})})
    found = archive(tables.load(synthetic.write_launches(tmp_path, [one, other])))
    assert [setup.label[:6] for setup in found.setups] == ["node ("] * 2
    assert len({setup.slug for setup in found.setups}) == 2


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    record = synthetic.record("a", 100.0, "train/segnet/vaihingen", 1, 0, 0, 1)
    (path,) = synthetic.write_launches(tmp_path, [record])
    folder = tmp_path / "report"
    site.build([path], folder)
    (folder / "setup-gone.html").write_text("of an older report")
    site.build([path], folder)
    assert not (folder / "setup-gone.html").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0000.json", "report"]

    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"report holds 'thesis.tex': it is not a report"):
        site.build([path], folder)
    (folder / "thesis.tex").unlink()
    (folder / "index.html").write_text("another page")
    with pytest.raises(UserError, match="has no index.html that a report wrote"):
        site.build([path], folder)
    with pytest.raises(UserError, match="is a file"):
        site.build([path], path)


def test_a_failed_build_leaves_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = synthetic.record("a", 100.0, "train/segnet/vaihingen", 1, 0, 0, 1)
    (path,) = synthetic.write_launches(tmp_path, [record])
    site.build([path], tmp_path / "report")
    before = {p.name: p.read_bytes() for p in (tmp_path / "report").iterdir()}
    cut = tmp_path / "cut.json"
    cut.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="cut.json is not whole JSON"):
        site.build([path, cut], tmp_path / "report")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="no space"):
        site.build([path], tmp_path / "report")
    assert {p.name: p.read_bytes() for p in (tmp_path / "report").iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0000.json", "cut.json", "report"]


def test_no_files_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no measurement"):
        site.build([], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_plain_benchmarks_of_another_project(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    stats = {"median": 0.5, "iqr": 0.01, "rounds": 3, "data": [0.49, 0.5, 0.51]}
    content = {
        "machine_info": {"node": "n", "cpu": {"brand_raw": "Some CPU", "count": 8}},
        "commit_info": {"id": "d" * 40, "dirty": False},
        "benchmarks": [{"fullname": "test_x.py::test_y", "stats": stats, "extra_info": {}}],
        "datetime": "2026-03-01T09:00:00+00:00",
        "version": "5.1",
    }
    path.write_text(json.dumps(content))
    site.build([path], tmp_path / "report")
    setups, workloads = Page((tmp_path / "report" / "index.html").read_text()).tables
    assert setups.rows[0][1] == "8 cores of Some CPU"
    assert workloads.rows[0][0] == "test_x.py::test_y"
    assert "2.000 calls/s" in workloads.rows[0]
