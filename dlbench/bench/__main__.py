"""Launch whole benchmarks on several setups and compare them: ``python -m dlbench.bench COMMAND``.

    run --launches 6 --interleave BASE.yaml OTHER.yaml ...    ends in the comparison with BASE
    run --launches 6 BASE.yaml                                collects launches of one setup
    aa --launches 6 [SETUP.yaml]      the same setup under two names: what can this machine detect?

A launch is one ``pytest benchmarks/``, and the unit that statistics count: steps within a launch
share its memory layout, its caches and its neighbours on the machine. What a setup may say is in
`dlbench.bench.setups`; launches lie in ``--out FOLDER/<setup>/``. The same command goes on where it
was stopped, adds launches when ``--launches`` is more, and repeats those that failed. A benchmark
that fails costs its own record alone: the launch keeps the others, and the status is 1. Six
launches can tell of up to four workloads (``--select``), and the whole suite needs nine: after the
first launch it says so.

A driver or a machine cannot take turns. Launch the baseline before and after such a change, under
two names ("driver 550", "driver 550 again"), and the other in between; compare each pair with
``python -m dlbench.report compare``. Where the two baselines differ, time has changed more than the
driver.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from dlbench import stopping
from dlbench.bench import launches, self_test, setups
from dlbench.bench.launches import Launch
from dlbench.bench.setups import Setup
from dlbench.config import ConfigError
from dlbench.errors import exit_status
from dlbench.report import load, markdown, statistics
from dlbench.report.compare import Comparison, compare

INTERRUPTED = 130
"""The shell's status of a command that Ctrl-C has ended."""


def run(arguments: argparse.Namespace) -> int:
    """Launch the setups, compare the first with each other; 1 if a launch or benchmark failed."""
    chosen = setups.load_distinct(arguments.setups)
    if len(chosen) > 1 and not arguments.interleave:
        raise ConfigError(
            f"{len(chosen)} setups are launched in turn: say so with --interleave. One after the "
            "other, a drift of the machine would count as a difference between them"
        )
    planned, status = _launch(chosen, arguments)
    base, *others = chosen
    for other in others:
        made = _compared(planned, base, other)
        command = None if made.wanted is None else _command(arguments, made.wanted)
        print(markdown.comparison(made, command), end="")
    if not others:
        there, folder = len(_measured(planned, base)), planned[0].folder
        print(
            f"{there} of {len(planned)} launches of '{base.name}' are in {folder}; compare them "
            f"with others:\npython -m dlbench.report compare {folder}/*.json --vs ..."
        )
    return status


def aa(arguments: argparse.Namespace) -> int:
    """Launch one setup under two names; 1 if something failed or the two came out different."""
    one = setups.load(arguments.setup) if arguments.setup else setups.this_machine()
    twins = [one.model_copy(update={"name": f"{one.name} {label}"}) for label in "AB"]
    planned, status = _launch(twins, arguments)
    rows = _compared(planned, *twins).rows
    print(self_test.text(rows))
    return status if all(map(self_test.agrees, rows)) else 1


def _launch(chosen: list[Setup], arguments: argparse.Namespace) -> tuple[list[Launch], int]:
    options = [] if arguments.select is None else ["-k", arguments.select]
    options += [] if arguments.profile is None else [f"--profile={arguments.profile}"]
    if options and (trained := [one.name for one in chosen if one.experiment is not None]):
        raise ConfigError(
            f"--select and --profile choose among benchmarks/; '{trained[0]}' runs an experiment, "
            "which its file describes"
        )
    planned = launches.in_turn(chosen, arguments.launches, arguments.out, arguments.shuffle)
    with launches.alone(arguments.out):
        failures = launches.run(
            planned,
            options,
            cooldown=arguments.cooldown,
            limit=arguments.limit,
            first=lambda launch: _warn_of_too_few(launch, arguments.launches),
            tell=lambda text: print(text, flush=True),
        )
    if failures:
        print(
            f"{len(failures)} of {len(planned)} launches failed; the same command repeats them",
            file=sys.stderr,
        )
    if failed := launches.failed_benchmarks(planned):
        named = ", ".join(f"{name} ({count})" for name, count in failed.items())
        print(
            f"benchmarks failed, in so many launches, and the others of these launches are kept: "
            f"{named}. The logs tell why; to repeat such a launch, remove its .json",
            file=sys.stderr,
        )
    return planned, 1 if failures or failed else 0


def _warn_of_too_few(launch: Launch, count: int) -> None:
    """After one launch it is known how many workloads share the error that is allowed."""
    measured = load([launch.result])
    compared = int((measured.judged & measured.throughput.notna()).sum())
    least = statistics.least(compared)
    if compared and count < least:
        fewer = "" if compared == 1 else ", or fewer workloads (--select)"
        print(
            f"warning: {count} launches of each setup show no difference in the speed of "
            f"{compared} workload(s), however large: needed is --launches {least}{fewer}",
            file=sys.stderr,
            flush=True,
        )


def _measured(planned: list[Launch], setup: Setup) -> list[Path]:
    if found := launches.results(planned, setup):
        return found
    raise ConfigError(
        f"no launch of '{setup.name}' has succeeded; {planned[0].folder.parent} holds the logs"
    )


def _compared(planned: list[Launch], base: Setup, other: Setup) -> Comparison:
    first, second = (load(_measured(planned, setup)) for setup in (base, other))
    return compare(first, second)


def _command(arguments: argparse.Namespace, count: int) -> str:
    """The command that was given, with ``count`` launches of each setup."""
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    words.add_argument("--launches")
    _, (name, *others) = words.parse_known_args(arguments.words)
    launched = [name, "--launches", str(count), *others]
    return shlex.join(["python", "-m", "dlbench.bench", *launched])


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0.0 <= float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--launches", type=_positive, default=6, metavar="N", help="of each setup")
    common.add_argument("--select", metavar="EXPR", help="only benchmarks that match (pytest -k)")
    common.add_argument("--profile", choices=("default", "full"), help="pytest's --profile")
    common.add_argument(
        "--cooldown", type=_seconds, default=0.0, metavar="S", help="between launches"
    )
    common.add_argument(
        "--limit", type=_seconds, default=7200.0, metavar="S", help="longest launch (7200)"
    )
    common.add_argument(
        "--shuffle", type=int, metavar="SEED", help="random order within each turn, not A B A B"
    )
    parser = argparse.ArgumentParser(
        "python -m dlbench.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser(
        "run", parents=[common], help="launch setups, compare them", allow_abbrev=False
    )
    one.add_argument("setups", nargs="+", type=Path, metavar="SETUP.yaml")
    one.add_argument("--interleave", action="store_true", help="several setups take turns")
    one.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="FOLDER")
    one.set_defaults(command=run)
    two = commands.add_parser(
        "aa", parents=[common], help="what can this machine detect?", allow_abbrev=False
    )
    two.add_argument("setup", nargs="?", type=Path, metavar="SETUP.yaml")
    two.add_argument("--out", type=Path, default=Path("runs/bench-aa"), metavar="FOLDER")
    two.set_defaults(command=aa)
    return parser


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Run a command and return the process's exit status: 2 for what the user can mend."""
    chosen = _parser().parse_args(arguments, argparse.Namespace(words=arguments))
    stopping.hear(_stop, (signal.SIGTERM, signal.SIGHUP))  # so that it ends the launch, too

    def job() -> int:
        try:
            status: int = chosen.command(chosen)
            return status
        except KeyboardInterrupt:
            again = shlex.join(["python", "-m", "dlbench.bench", *arguments])
            told = "stopped; finished launches are kept, and this goes on:"
            print(f"\n{told}\n{again}", file=sys.stderr)
            return INTERRUPTED

    return exit_status("dlbench.bench", job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
