"""``python -m dlbench.report``: what it prints, what it writes, and its exit status."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import synthetic_launches as synthetic

from dlbench import report
from dlbench.report import gates, markdown
from dlbench.report.__main__ import main
from dlbench.report.records import Record

SAME = "train/segnet/same"
SLOW = "train/segnet/slow"


def side(name: str, factor: float = 1.0, rss: float = 1.0, count: int = 6) -> list[Record]:
    """Launches of two workloads, of which one is ``factor`` as fast; mIoU 0.75, RMSE 0.3."""
    return [
        synthetic.launch(
            number,
            name=name,
            workload=workload,
            step_s=(0.1 + 0.0001 * ((7 * number) % 5)) / (factor if workload == SLOW else 1.0),
            rss=rss * 2**30 if workload == SLOW else 2**30,
            quality={"mean_iou": 0.75 * factor, "rmse": 0.3 / factor} if workload == SLOW else {},
        )
        for workload in (SAME, SLOW)
        for number in range(count)
    ]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with launches A*.json, and B*.json whose one workload is 5 % slower."""
    synthetic.write(side("A"), tmp_path)
    synthetic.write(side("B", 0.95, 1.1), tmp_path)
    return tmp_path


def compare(folder: Path, *options: str) -> int:
    return main(["compare", f"{folder}/A*.json", "--vs", f"{folder}/B*.json", *options])


def gate(folder: Path, text: str) -> str:
    path = folder / "gates.yaml"
    path.write_text(text)
    return str(path)


def test_the_table_tells_the_verdicts(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(files, "--markdown", str(files / "out.md")) == 0
    printed = capsys.readouterr().out
    assert (files / "out.md").read_text() == printed
    lines = [line for line in printed.splitlines() if line.startswith(f"| {SLOW}")]
    assert re.search(r"\| 0\.95 .*\| 0\.94\d+ to 0\.95\d+ +\| 0\.0043 +\| slower +\|$", lines[0])
    assert any("host rss" in line and line.endswith("| more    |") for line in lines)
    assert any("mean iou" in line and line.endswith("| worse   |") for line in lines)
    assert "2 workloads: 1 slower, 1 same." in printed
    assert "memory growth: train/segnet/slow" in printed
    every = [cell.split(", ") for cell in lines[-1].split(" | ")[1:]]
    assert [len(cell) for cell in every] == [6, 6]


@pytest.mark.parametrize(
    ("thresholds", "status", "words"),
    [
        ("min_throughput_ratio: 0.9", 0, "throughput is 0.950 x"),
        ("min_throughput_ratio: 0.97", 1, "throughput is 0.950 x the baseline's (0.94"),
        ("max_memory_ratio: 1.05", 1, "peak_host_rss is 1.100 x the baseline's"),
        ("max_memory_ratio: 1.2", 0, "wanted is ≤ 1.2"),
        ("min_mean_iou: 0.7", 0, "mean_iou is 0.7125, wanted is ≥ 0.7"),
        ("min_mean_iou: 0.72", 1, "mean_iou is 0.7125, wanted is ≥ 0.72"),
        ("max_mean_iou_drop: 0.05", 0, "fell by 0.0375, from 0.7500 to 0.7125"),
        ("max_mean_iou_drop: 0.03", 1, "allowed is 0.03"),
        ("max_rmse: 0.31", 1, "rmse is 0.3158"),
        ("max_rmse_rise: 0.01", 1, "rmse rose by 0.0158"),
        ("max_rmse_rise: 0.02", 0, "allowed is 0.02"),
    ],
)
def test_gates(
    files: Path, capsys: pytest.CaptureFixture[str], thresholds: str, status: int, words: str
) -> None:
    path = gate(files, f'gates:\n  "*/slow": {{{thresholds}}}\n')
    assert compare(files, "--gate", path) == status
    printed = capsys.readouterr()
    assert words in printed.out.replace("\\", "")
    assert ("gate breached: train/segnet/slow" in printed.err) == (status == 1)


def test_a_gate_that_cannot_tell_breaches_only_if_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.write(side("A", count=1), tmp_path)
    synthetic.write(side("B", 0.5, count=1), tmp_path)
    text = 'gates:\n  "*": {min_throughput_ratio: 0.9}\n'
    assert compare(tmp_path, "--gate", gate(tmp_path, text)) == 0
    assert "| cannot tell | throughput is 0.500 x" in capsys.readouterr().out
    assert compare(tmp_path, "--gate", gate(tmp_path, "strict: true\n" + text)) == 1
    assert "gate cannot tell: train/segnet/slow" in capsys.readouterr().err
    # An absolute score of a single wrong run is wrong all the same.
    text = 'gates:\n  "*/slow": {min_mean_iou: 0.7}\n'
    assert compare(tmp_path, "--gate", gate(tmp_path, text)) == 1


def test_gates_are_corrected_for_what_is_gated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 20 workloads six launches tell nothing; of the one that is gated they do."""
    for name, factor in (("A", 1.0), ("B", 0.5)):
        synthetic.write(
            [
                synthetic.launch(
                    number,
                    name=name,
                    workload=f"train/segnet/{workload}",
                    step_s=(0.1 + 0.0001 * ((7 * number) % 5)) / factor,
                )
                for workload in range(20)
                for number in range(6)
            ],
            tmp_path,
        )
    one = 'gates:\n  "train/segnet/3": {min_throughput_ratio: 0.9}\n'
    assert compare(tmp_path, "--gate", gate(tmp_path, one)) == 1
    assert "gate breached: train/segnet/3" in capsys.readouterr().err
    every = one.replace("/3", "/*")
    assert compare(tmp_path, "--gate", gate(tmp_path, every)) == 0
    printed = capsys.readouterr().out
    assert "of 20 gated workloads 6 + 6 launches tell nothing, 8 of each may" in printed


def test_peers_are_not_gated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "AB":
        synthetic.write_benchmarks(side(name, count=1), tmp_path / f"{name}.json", [SLOW])
    text = f'gates:\n  "{SLOW}": {{min_throughput_ratio: 0.9}}\n'
    assert compare(tmp_path, "--gate", gate(tmp_path, text)) == 2
    assert f"fits no workload; there are {SAME}" in capsys.readouterr().err


@pytest.mark.parametrize("old", ["A", "B"])
def test_a_file_that_tells_no_peers_apart_is_held_against_one_that_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str
) -> None:
    """As files of versions before the key do."""
    for name in "AB":
        for number in range(6):
            found = [one for one in side(name) if one.created == side(name)[number].created]
            path = tmp_path / f"{name}{number}.json"
            synthetic.write_benchmarks(found, path, [SLOW])
            if name == old:
                content = json.loads(path.read_text())
                for benchmark in content["benchmarks"]:
                    del benchmark["extra_info"]["judged"]
                path.write_text(json.dumps(content))
    text = 'gates:\n  "*": {min_throughput_ratio: 0.9}\n'
    assert compare(tmp_path, "--gate", gate(tmp_path, text)) == 0
    printed = capsys.readouterr().out
    assert "1 peers, bare kernels and controls" in printed
    assert "Only in" not in printed
    assert SLOW not in printed


def test_what_the_candidate_lacks_breaches(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = gate(files, f'gates:\n  "{SAME}": {{max_rmse: 0.5, max_rmse_rise: 1.0}}\n')
    assert compare(files, "--gate", path) == 1
    told = capsys.readouterr().err
    assert "the candidate has no rmse" in told
    assert "rmse is not known of both sides" in told
    for path_ in files.glob("B*.json"):
        if SLOW in path_.read_text():
            path_.unlink()
    path = gate(files, f'gates:\n  "{SLOW}": {{min_throughput_ratio: 0.5}}\n')
    assert compare(files, "--gate", path) == 1
    assert "the candidate has no launch of it" in capsys.readouterr().err


def bare(record: Record, time: bool, memory: bool) -> Record:
    """Without steps, or without peaks of memory."""
    changes: dict[str, Any] = {} if time else {"step_s": (), "wall_s": 0.0}
    if not memory:
        changes["peak_bytes"] = {}
    ranks = tuple(rank.model_copy(update=changes) for rank in record.ranks)
    return record.model_copy(update={"ranks": ranks})


@pytest.mark.parametrize(
    ("threshold", "has", "told"),
    [
        ("min_throughput_ratio: 0.9", {"time": False, "memory": True}, "throughput"),
        ("max_memory_ratio: 1.2", {"time": True, "memory": False}, "peak memory"),
    ],
)
def test_what_no_side_has_measured_breaches_no_pattern(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    threshold: str,
    has: dict[str, bool],
    told: str,
) -> None:
    """As the throughput of a benchmark of memory."""
    less = {
        name: [bare(one, **has) if one.workload.id == SLOW else one for one in side(name)]
        for name in "AB"
    }

    def status(pattern: str, baseline: list[Record], candidate: list[Record]) -> int:
        synthetic.write(baseline, tmp_path)
        synthetic.write(candidate, tmp_path)
        text = f'gates:\n  "{pattern}": {{{threshold}}}\n'
        return compare(tmp_path, "--gate", gate(tmp_path, text))

    assert status("*", less["A"], less["B"]) == 0
    assert f"| {SAME}" in capsys.readouterr().out.partition("## Gates")[2]
    # What the baseline knows may have been lost to a crash.
    for pattern, baseline in (("*", side("A")), (SLOW, less["A"]), ("*/sl*", less["A"])):
        assert status(pattern, baseline, less["B"]) == 1
        assert f"{told} is not known of both sides" in capsys.readouterr().err
    assert status("*", less["A"], side("B")) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gates: {}", "gates: "),
        ("strict: true", "gates: Field required"),
        ('gates: {"*": {}}', "'*' has no threshold; known: min_throughput_ratio, "),
        ('gates: {"*": {min_speed: 1}}', "gates.*.min_speed: unknown key; known here: min_thr"),
        ("gate: 1", "gate: unknown key; known here: strict, gates"),
        ('gates: {"*": {max_rmse: .nan}}', "gates.*.max_rmse"),
        ('gates: {"*": {min_throughput_ratio: -1}}', "greater than 0 (got -1)"),
        ('gates: {"nothing": {max_rmse: 1}}', "'nothing' fits no workload; there are train/"),
        ("gates: [", "is not valid YAML"),
        ("[]", "holds a list"),
    ],
)
def test_wrong_gates_are_refused(
    files: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    assert compare(files, "--gate", gate(files, text)) == 2
    assert words in capsys.readouterr().err


def test_a_benchmark_s_own_name_is_a_pattern() -> None:
    assert gates._fits("bench.py::step[1-float32]", "bench.py::step[1-float32]", "label")
    assert not gates._fits("bench.py::other", "bench.py::step[1]", "label")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text[: len(text) // 2], "B0.json is not whole JSON"),
        (lambda text: text.replace("result/2", "result/3"), "has schema 'dlbench.result/3'"),
        (lambda text: text.replace(SAME, "other").replace(SLOW, "more"), None),
    ],
)
def test_files_that_cannot_be_compared(
    files: Path, capsys: pytest.CaptureFixture[str], spoil: Any, words: str | None
) -> None:
    path = files / "B0.json"
    path.write_text(spoil(path.read_text()))
    assert main(["compare", f"{files}/A*.json", "--vs", str(path)]) == 2
    told = capsys.readouterr()
    assert (words or "no workload in common") in told.err
    assert told.out == ""


def test_patterns_without_files_and_files_on_both_sides(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", f"{files}/A*.json", "--vs", f"{files}/C*.json"]) == 2
    assert "no file fits the pattern" in capsys.readouterr().err
    assert main(["compare", f"{files}/A*.json", "--vs", f"{files}/A0.json"]) == 2
    assert "1 launches are on both sides" in capsys.readouterr().err


def test_names_are_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = (
        "<script>alert(1)</script> | `x` **b** [l](javascript:0) @me \x1b[31m\n~~~~\n# t $(reboot)"
    )
    evil = [
        synthetic.launch(0, name=name, fingerprint="e" * 16, workload="a/<img src=x onerror=y>")
    ]
    good = [synthetic.launch(0, workload="a/<img src=x onerror=y>")]
    synthetic.write(good, tmp_path)
    (tmp_path / "B").mkdir()
    (path,) = synthetic.write(evil, tmp_path / "B")
    assert main(["compare", f"{tmp_path}/A*.json", "--vs", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "<" not in printed
    assert not re.search(r"(?<!\\)[`\[]", printed)
    assert "~~~~" not in printed.replace("\\~", "")
    assert "\x1b" not in printed
    assert "\n# t" not in printed
    assert main(["show", str(path)]) == 0
    assert "<script" not in capsys.readouterr().out


def test_show(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", f"{files}/B*.json"]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 2 + 12
    assert "89.0% / 10.0% / 1.0%" in printed
    assert "1.100 GiB" in printed


def test_escaping() -> None:
    assert markdown.escaped("a_b mixed_bfloat16 _c_ x*y") == r"a_b mixed_bfloat16 \_c\_ x\*y"
    assert markdown.escaped("a\nb|c & <d>") == r"a b\|c &amp; &lt;d>"


def test_reports_need_nothing_of_what_measures() -> None:
    """`dlbench.bench` imports the records; imports the other way would close a circle."""
    folder = Path(report.__file__).parent
    imported = {
        f"{path.name}: {name}"
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imports(node)
        if f"{name}.".startswith("dlbench.bench.")
    }
    assert imported == set()


def imports(node: ast.AST) -> list[str]:
    """Modules, and what is imported from them as if it were one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []
