"""The pages but for the comparison: archive, workloads, a page a family, downloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dlbench.report.site import figures, markup
from dlbench.report.site.archive import Archive, Family, Group, files_of
from dlbench.report.site.groups import SCRIPTS, family_cell, group_table
from dlbench.report.site.markup import UNKNOWN, Cell, Column, escape, link, table
from dlbench.report.site.setups import setup_table


def index(archive: Archive) -> str:
    """All setups, and below them every workload on each."""
    groups = archive.groups
    launches = len(files_of(groups))
    every = group_table(archive, groups, "Every workload on every setup", True)
    body = (
        f"<p>{launches:,} launches of {len({g.workload for g in groups}):,} workloads on "
        f"{len(archive.setups):,} setups{_span(groups)}. A launch is one whole run: medians and "
        "spreads are over launches, and what is not known is a dash. "
        f"{link('compare.html', 'Compare two setups')}.</p>"
        f"<h2>Setups</h2>{setup_table(archive.setups)}"
        f"<h2>All workloads</h2>{every}"
    )
    return markup.page("Archive of results", body, at="index.html", scripts=SCRIPTS)


def workloads(archive: Archive) -> str:
    """The list of families, each with its page of charts."""
    columns = [
        Column("Workload", key="workload"),
        Column("Precision", choice=True, key="precision"),
        Column("Input", key="input"),
        Column("Mode", choice=True, key="mode"),
        Column("Setups", numeric=True, key="setups"),
        Column("Ranks", key="ranks"),
        Column("Launches", numeric=True, key="launches"),
    ]
    rows = []
    for family, groups in _by_family(archive).items():
        ranks = sorted({g.workload.ranks for g in groups if g.workload.ranks is not None})
        told = ", ".join(map(str, ranks)) or UNKNOWN
        setups = len({id(group.subject.setup) for group in groups})
        launches = sum(len(group.launches) for group in groups)
        rows.append(
            [
                family_cell(archive, family),
                Cell(family.precision or UNKNOWN),
                Cell(family.shape or UNKNOWN),
                Cell(family.mode),
                Cell(str(setups), setups),
                Cell(told, ranks[0] if ranks else None),
                Cell(f"{launches:,}", launches),
            ]
        )
    body = (
        "<p>Each workload's page draws throughput, scaling over ranks, where a step's time goes, "
        "memory, quality and history.</p>"
    ) + table("Workloads", columns, rows, filtered=True)
    return markup.page("Workloads", body, at="workloads.html", scripts=SCRIPTS)


def families(archive: Archive) -> Iterator[tuple[str, str]]:
    """The name and text of each family's page."""
    for family, groups in _by_family(archive).items():
        drawn = figures.all_of(groups)
        contents = "".join(f"<li>{link('#' + one.key, one.title)}</li>" for one in drawn)
        facts = [
            ("Model", family.model or UNKNOWN),
            ("Data", family.data or UNKNOWN),
            ("Precision", family.precision or UNKNOWN),
            ("Input", family.shape or UNKNOWN),
            ("Mode", family.mode),
        ]
        body = (
            f'{markup.facts(facts)}<nav aria-label="Charts"><ul class="contents">{contents}</ul>'
            "</nav><p>Where a setup ran several states of the code, all charts but the history "
            f"show the newest.</p>{''.join(one.html() for one in drawn)}"
        )
        name = f"workload-{archive.families[family]}.html"
        yield name, markup.page(family.label, body, at="workloads.html", scripts=SCRIPTS)


def downloads(summary: str) -> str:
    """The numbers as files, and the summary for a pull request."""
    body = (
        "<p>One row a launch of a workload, every column of "
        "<code>dlbench.report.load(paths)</code>, which gives a notebook the same table.</p>"
        f'<ul class="files"><li>{link("results.csv", "results.csv")} for spreadsheets and R</li>'
        f"<li>{link('results.json', 'results.json')}, a list of objects; unknown is null</li>"
        f"<li>{link('summary.md', 'summary.md')}, the text below</li></ul>"
        '<h2 id="summary">Summary for a pull request</h2><p>Markdown; the page '
        f"{link('compare.html', 'Compare')} gives it for other pairs.</p>"
        f'<textarea readonly rows="24" aria-labelledby="summary" spellcheck="false">'
        f"\n{escape(summary)}</textarea>"
    )
    return markup.page("Downloads", body, at="downloads.html")


def _by_family(archive: Archive) -> dict[Family, list[Group]]:
    found: dict[Family, list[Group]] = {family: [] for family in archive.families}
    for group in archive.groups:
        found[group.workload.family].append(group)
    return found


def _span(groups: Iterable[Group]) -> str:
    days = sorted(la.created for g in groups for la in g.launches if la.created is not None)
    return f", {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}" if days else ""
