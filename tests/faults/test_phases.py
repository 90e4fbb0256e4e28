"""A rank that is killed, whatever the job is doing, ends it soon; the same command goes on to the
same bits, and leaves neither a process nor a file that is half written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.conftest import NoteFault
from faults.disturbed import assert_equal
from faults.rank_jobs import EPOCHS, ROOT, SOON, arguments, epochs, from_ranks, running
from ranks.phases import PHASES
from street_scenes import draw_street

from dlbench import checkpoint

EVALUATED = ["training.evaluate_every=2", "training.evaluation_batch=2"]
"""Twice in a run, each time on both ranks."""
PHASED = str(ROOT / "tests/ranks/phases.py")
SAME_BITS = "nothing: the same command ends in the same bits"
MADE_AGAIN = "what came after the last checkpoint is made again, to the same bits"


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, launch: Callable[..., Any]
) -> tuple[Path, float]:
    """A folder with a run that nothing has disturbed, to compare others with; and its seconds."""
    folder = tmp_path_factory.mktemp("phases")
    draw_street(folder / "street")
    ended = launch(["-m", "dlbench.train", *arguments("whole"), *EVALUATED], folder, ranks=2)
    assert ended.status == 0, ended.output
    return folder, ended.seconds


@pytest.fixture
def place(whole: tuple[Path, float]) -> Iterator[Path]:
    """The folder of `whole`. What a job has left in it, against all expectation, ends here."""
    yield whole[0]
    for process in running(whole[0]):
        process.kill()


def unfinished(run: Path) -> list[Path]:
    """Files of a process that was killed while it wrote them."""
    return list(run.rglob(".*"))


def goes_on(launch: Callable[..., Any], place: Path, name: str, told: str | None) -> str:
    """The output of the same command, which says ``told``, or begins anew, and is to leave what the
    undisturbed run has left."""
    resumed = launch(["-m", "dlbench.train", *arguments(name), *EVALUATED], place, ranks=2)
    assert resumed.status == 0, resumed.output
    if told is None:
        assert "resuming" not in resumed.output
        assert "the run is complete" not in resumed.output
    else:
        assert told in resumed.output, resumed.output
    assert_equal(place, name)
    found, expected = ({p.name for p in (place / "runs" / n).rglob("*")} for n in (name, "whole"))
    assert found == expected, "a file is missing, or one that is half written is left"
    assert not running(place)
    return str(resumed.output)


def test_a_killed_rank_ends_the_job_and_the_next_start_resumes(
    whole: tuple[Path, float], place: Path, launch: Callable[..., Any], note_fault: NoteFault
) -> None:
    command = [*arguments("killed"), *EVALUATED]
    killed = launch([str(ROOT / "tests/ranks/dying.py"), "3", "1", *command], place, ranks=2)
    assert killed.status != 0
    assert killed.seconds < whole[1] + SOON
    assert "Process name: 1\nExit code: 137" in killed.output, "neither the rank nor its end"
    assert not from_ranks(killed.output, "Traceback")
    folder = place / "runs" / "killed"
    assert epochs(folder) == ["1", "2"]
    assert not running(place)

    # Of two ranks the sums have one order only, so they are exact.
    goes_on(launch, place, "killed", f"resuming after epoch 2 of {EPOCHS}")
    assert epochs(folder) == ["1", "2", "3", "4"]
    note_fault(
        "a rank is killed between steps", killed.output, "Process name: 1\nExit code: 137",
        SAME_BITS,
    )  # fmt: skip


FIRST = f"resuming after epoch 1 of {EPOCHS}"
DONE = "the run is complete"


@pytest.mark.parametrize(
    ("phase", "happens", "resumes", "lost"),
    [
        # The one phase of which a file is left that the next start has to clear away.
        ("checkpoint", "while it writes a checkpoint", FIRST, MADE_AGAIN),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("start", "at the start, before Horovod's init", None, SAME_BITS),
                ("init", "within Horovod's init", None, SAME_BITS),
                ("first step", "in the first step, while it is traced", None, SAME_BITS),
                ("mid-step", "between a backward pass and its sums", FIRST, MADE_AGAIN),
                ("evaluation", "in an evaluation", FIRST, MADE_AGAIN),
                ("report", "while it writes the report", DONE, "nothing: the report is made again"),
                ("exit", "at its exit, when all is written", DONE, "nothing"),
            )
        ),
    ],
)
def test_a_rank_that_is_killed_in_a_phase_costs_no_bit(
    place: Path,
    launch: Callable[..., Any],
    note_fault: NoteFault,
    phase: str,
    happens: str,
    resumes: str | None,
    lost: str,
) -> None:
    name = phase.replace(" ", "-")
    killed = launch([PHASED, phase, *arguments(name), *EVALUATED], place, ranks=2)
    took = time.time() - (place / f"{name}.killed").stat().st_mtime
    print(f"{phase}: the job ended {took:.1f} s after the kill")
    assert killed.status != 0
    assert took < SOON
    told = f"Process name: {PHASES[phase][0]}\nExit code: 137"
    if phase == "init" and told not in killed.output:
        # Horovod's init aborts when the other rank has gone, at once: it may be the first to end.
        told = "Process name: 0\nExit code: 134"
    assert told in killed.output, killed.output
    assert not from_ranks(killed.output, "Traceback")
    assert len(from_ranks(killed.output, "dlbench.train (rank ")) <= 1
    assert not running(place)
    run = place / "runs" / name
    assert bool(unfinished(run)) == (phase in ("checkpoint", "report")), "another place"
    for path in run.rglob("[!.]*.npz"):
        checkpoint.load(path)
    assert phase != "report" or not (run / "model.keras").exists()
    goes_on(launch, place, name, resumes)
    note_fault(f"a rank is killed {happens}", killed.output, told, lost)


@pytest.mark.slow
def test_ranks_whose_launcher_is_killed_end_too(
    place: Path, launch: Callable[..., Any], note_fault: NoteFault
) -> None:
    """As by SIGTERM, by a process of Horovod's that is beside each; what they say goes nowhere."""
    words = arguments("launcher")
    launch([PHASED, "launcher", *words, *EVALUATED], place, ranks=2)
    killed = (place / "launcher.killed").stat().st_mtime
    while running(place):
        assert time.time() < killed + SOON, running(place)
        time.sleep(0.1)
    print(f"launcher: its ranks ended {time.time() - killed:.1f} s after it")
    told = f"resuming after epoch 2 of {EPOCHS}"
    output = goes_on(launch, place, "launcher", told)
    note_fault("the launcher is killed (SIGKILL)", output, told, SAME_BITS)
