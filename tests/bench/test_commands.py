"""`python -m dlbench.bench`, with a stand-in for the python that would measure."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from dlbench.bench import __main__ as commands
from dlbench.bench.__main__ import main
from dlbench.report.__main__ import main as report
from dlbench.report.relaunch import folder_name

SETUP = "name: {name}\npython: python\n{rest}"


@pytest.fixture
def files(out: Path) -> list[str]:
    """Setup files of two setups, the second a tenth slower."""
    (out.parent / "base.yaml").write_text(SETUP.format(name="base", rest=""))
    slower = 'variables: {SLOWER: "1.1"}\n'
    (out.parent / "other.yaml").write_text(SETUP.format(name="other", rest=slower))
    return ["base.yaml", "other.yaml"]


def journal(out: Path) -> list[str]:
    return (out.parent / "journal").read_text().split("\n")[:-1]


def test_two_setups_end_in_their_comparison(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--launches", "6", "--interleave", *files, "--out", str(out)]
    assert main(command) == 0
    assert journal(out) == ["base", "other"] * 6
    told = capsys.readouterr().out
    assert "launch 12 of 12: other, number 6" in told
    assert "op/copy" in told
    assert "slower" in told
    assert "dlbench.bench run" not in told


def test_ctrl_c_tells_the_command_that_goes_on(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "aa", interrupted)
    assert main(["aa", "--out", str(out)]) == 130
    told = capsys.readouterr().err
    assert told.endswith(f"this goes on:\npython -m dlbench.bench aa --out {out}\n")


def test_what_is_open_is_told_with_the_command_that_goes_on(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--launches=1", "--interleave", *files, "--out", str(out), "--select", "a b"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "cannot tell" in told
    advice = next(line for line in told.splitlines() if line.startswith("python -m"))
    assert advice == (
        "python -m dlbench.bench run --launches 5 --interleave base.yaml other.yaml "
        f"--out {out} --select 'a b'"
    )
    assert "-k" in (out / "base" / "01.log").read_text()


@pytest.mark.parametrize("name", ["other", "$(reboot) 'x'"])
def test_the_command_that_a_comparison_of_files_gives_goes_on(
    out: Path,
    files: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """From within the folder, with the options and the variables of the launches that are there."""
    slower = f'name: "{name}"\npython: python\nvariables: {{SLOWER: "1.1"}}\n'
    (out.parent / "other.yaml").write_text(slower)
    options = ["--out", str(out), "--select=-a 'b'", "--profile", "full"]
    assert main(["run", "--launches=1", "--interleave", *files, *options]) == 0
    monkeypatch.chdir(out)
    folder = folder_name(name)
    capsys.readouterr()
    assert report(["compare", "base/01.json", "--vs", f"{folder}/01.json"]) == 0
    told = capsys.readouterr().out
    _, _, rest = told.partition("~~~~sh\n")
    python, module, program, *words = shlex.split(rest.partition("\n~~~~")[0])
    assert (python, module, program) == ("python", "-m", "dlbench.bench")
    assert main(words) == 0
    assert journal(out) == ["base", name] * 5
    assert sorted(path.name for path in (out / folder).glob("*.json"))[-1] == "05.json"
    assert "SLOWER" in (out / folder / "launches.yaml").read_text()
    assert "slower" in capsys.readouterr().out


def test_files_that_were_moved_have_counts_and_no_command(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--launches=1", "--interleave", *files, "--out", str(out)]) == 0
    (out / "other").rename(out / "elsewhere")
    capsys.readouterr()
    assert report(["compare", f"{out}/base/01.json", "--vs", f"{out}/elsewhere/01.json"]) == 0
    told = capsys.readouterr().out
    assert "5 of each setup, launched in turn" in told
    assert "~~~~" not in told


def test_too_few_launches_are_told_after_the_first(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--launches", "4", "--interleave", *files, "--out", str(out)]
    for _ in range(2):  # and again, where all of them are there
        assert main(command) == 0
        assert capsys.readouterr().err == (
            "warning: 4 launches of each setup show no difference in the speed of 1 workload(s), "
            "however large: needed is --launches 5\n"
        )
    command[2] = "5"
    assert main(command) == 0
    assert capsys.readouterr().err == ""


def test_one_setup_is_collected(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--launches", "2", files[0], "--out", str(out)]) == 0
    assert "2 of 2 launches of 'base' are in" in capsys.readouterr().out


def test_a_setup_does_not_differ_from_itself(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["aa", "--launches", "6", files[0], "--out", str(out)]) == 0
    assert journal(out) == ["base A", "base B"] * 6
    told = capsys.readouterr().out
    assert "this machine detects differences in throughput" in told
    assert "FAULT" not in told


def test_a_machine_that_tells_twins_apart_is_at_fault(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second launch is slower: B's."""
    monkeypatch.setenv("SLOWER_EVEN", "1.2")
    assert main(["aa", "--launches", "6", files[0], "--out", str(out)]) == 1
    assert "FAULT of this machine" in capsys.readouterr().out


def test_a_failed_launch_is_in_the_status(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL_AT", "1")
    assert main(["run", "--launches", "2", files[0], "--out", str(out)]) == 1
    told = capsys.readouterr()
    assert "E   AssertionError: the output is wrong" in told.out
    assert "1 of 2 launches failed" in told.err


def test_a_failed_benchmark_is_in_the_status_and_the_others_are_compared(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "op/broken")
    command = ["run", "--launches", "6", "--interleave", *files, "--out", str(out)]
    assert main(command) == 1
    told = capsys.readouterr()
    assert "slower" in told.out
    assert "op/broken (12)" in told.err
    assert main(command) == 1  # nothing is left to launch, and it is told again
    assert len(journal(out)) == 12
    assert "op/broken (12)" in capsys.readouterr().err


def test_a_setup_without_launches_cannot_be_compared(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL_AT", "2")
    assert main(["run", "--launches", "1", "--interleave", *files, "--out", str(out)]) == 2
    assert "no launch of 'other' has succeeded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "base.yaml", "other.yaml"], "say so with --interleave"),
        (["run", "missing.yaml"], "cannot read the configuration missing.yaml"),
        (["run", "base.yaml", "--launches", "0"], "0 is not a whole number from 1"),
        (["run", "base.yaml", "--cooldown", "-1"], "-1 is not a number of seconds"),
        (["run", "base.yaml", "--selct", "x"], "unrecognized arguments: --selct"),
        (["aa", "trained.yaml", "--select", "x"], "choose among benchmarks/"),
        (["run"], "required: SETUP.yaml"),
        ([], "required: COMMAND"),
    ],
)
def test_mistakes_are_told(
    out: Path, files: list[str], capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    trained = SETUP.format(name="trained", rest="experiment: []\n")
    (out.parent / "trained.yaml").write_text(trained)
    try:
        status = main(words)
    except SystemExit as ended:  # argparse's own way
        status = ended.code  # type: ignore[assignment]
    assert status == 2
    assert told in capsys.readouterr().err
    assert not (out.parent / "journal").exists()
