"""Compare, show and publish result records: ``python -m dlbench.report COMMAND``.

    compare A*.json --vs B*.json [--gate gates.yaml] [--markdown OUT.md]
    show FILES                   one line a launch
    build FOLDER FILES           pages that open from disk
    forecast FILES --ranks 4,8   a training step on ranks that nobody measured, with its uncertainty

Files are result records (``record.json`` of a run) or pytest-benchmark JSON, of dlbench or of other
projects. The status is 0; 1 if a gate is breached; 2 for what the user can mend.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from dlbench.checkpoint import write_atomically
from dlbench.errors import exit_status


def compare(arguments: argparse.Namespace) -> int:
    """Print the comparison; 1 if a gate is breached."""
    from dlbench.report import gates, load, markdown, relaunch
    from dlbench.report.compare import compare

    # Before the many files: a mistake in one short file is told at once.
    wanted = None if arguments.gate is None else gates.load(arguments.gate)
    baseline, candidate = load(arguments.baseline), load(arguments.vs)
    made = compare(baseline, candidate)
    sides = [[Path(file) for file in side.file] for side in (baseline, candidate)]
    command = None if made.wanted is None else relaunch.command(sides, made.wanted)
    text = markdown.comparison(made, command)
    failing = []
    if wanted is not None:
        results = gates.check(wanted, made, baseline, candidate)
        failing = gates.breached(wanted, results)
        cells = [(result.workload, result.outcome, result.text) for result in results]
        lines = markdown.table(("workload", "gate", "what was found"), cells)
        text += "\n".join(["", "## Gates", "", *lines, ""])
    print(text, end="")
    if arguments.markdown is not None:
        write_atomically(arguments.markdown, lambda file: file.write(text.encode()))
    for result in failing:
        where = markdown.printable(result.workload)
        print(f"gate {result.outcome}: {where}: {result.text}", file=sys.stderr)
    return 1 if failing else 0


def show(arguments: argparse.Namespace) -> int:
    """Print a line a launch."""
    from dlbench.report import load, markdown

    print(markdown.launches(load(arguments.files)), end="")
    return 0


def build(arguments: argparse.Namespace) -> int:
    """Write the pages."""
    from dlbench.report import tables
    from dlbench.report.site import build

    build(tables.expand(arguments.files), arguments.folder)
    return 0


def forecast(arguments: argparse.Namespace) -> int:
    """Print the forecast."""
    from dlbench.report import forecast as model
    from dlbench.report import forecast_launches, forecast_page, tables
    from dlbench.report.records import Record, read_many

    def read(files: list[str]) -> list[Record]:
        return read_many(tables.expand(files))

    fitted = forecast_launches.usable(read(arguments.files), arguments.workload)
    measured, load = (
        forecast_launches.alike(read(files), fitted, option) if files else None
        for files, option in ((arguments.measured, "--measured"), (arguments.load, "--load"))
    )
    chosen, link = forecast_launches.chosen_link(fitted.launches, arguments.bandwidth)
    beside, busy = (one.launches if one else [] for one in (measured, load))
    made = model.forecast(chosen, arguments.ranks, link, busy)
    used = [record for one in (fitted, measured, load) if one for record in one.records]
    text = forecast_page.markdown(chosen, made, link, beside, busy, used)
    print(text, end="")
    if arguments.markdown is not None:
        write_atomically(arguments.markdown, lambda file: file.write(text.encode()))
    return 0


def _rate(text: str) -> float:
    from dlbench.report.forecast_launches import parsed_rate

    try:
        return parsed_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _ranks(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5})*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 4,8,16")
    return tuple(map(int, text.split(",")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m dlbench.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("compare", help="two setups", allow_abbrev=False)
    one.add_argument("baseline", nargs="+", metavar="BASELINE.json")
    one.add_argument("--vs", nargs="+", required=True, metavar="CANDIDATE.json")
    one.add_argument("--gate", type=Path, metavar="GATES.yaml", help="thresholds to be kept")
    one.add_argument("--markdown", type=Path, metavar="OUT.md", help="for a pull request")
    one.set_defaults(command=compare)
    two = commands.add_parser("show", help="one line a launch", allow_abbrev=False)
    two.add_argument("files", nargs="+", metavar="FILE.json")
    two.set_defaults(command=show)
    three = commands.add_parser("build", help="a folder of pages", allow_abbrev=False)
    three.add_argument("folder", type=Path, metavar="FOLDER")
    three.add_argument("files", nargs="+", metavar="FILE.json")
    three.set_defaults(command=build)
    four = commands.add_parser("forecast", help="steps on more ranks", allow_abbrev=False)
    four.add_argument("files", nargs="+", metavar="FILE.json")
    four.add_argument("--ranks", type=_ranks, required=True, metavar="N,N")
    four.add_argument("--bandwidth", type=_rate, metavar="RATE", help="another link, as 10gbit")
    four.add_argument("--workload", metavar="ID", help="where the files hold several")
    four.add_argument("--measured", nargs="+", metavar="FILE.json", help="to see it beside")
    four.add_argument("--load", nargs="+", metavar="FILE.json", help="whose own work to take")
    four.add_argument("--markdown", type=Path, metavar="OUT.md", help="as a file, too")
    four.set_defaults(command=forecast)
    return parser


def main(arguments: list[str]) -> int:
    """Run a command and return the process's exit status."""
    chosen = _parser().parse_args(arguments)
    return exit_status("dlbench.report", lambda: chosen.command(chosen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
