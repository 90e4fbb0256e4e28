"""The two sides of a comparison: what each may hold, and what not both."""

from __future__ import annotations

import pandas as pd

from dlbench.errors import UserError
from dlbench.report import particulars, tables


class CompareError(UserError):
    """Launches that cannot be compared; the message says why and what to do."""


def agreeing(baseline: pd.DataFrame, candidate: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both, with a column ``label`` (`tables.label`), and with what either says is not judged
    judged on neither: files from before 29 November 2026 do not tell peers, bare kernels and
    controls apart."""
    first, second = (side.assign(label=_labels(side)) for side in (baseline, candidate))
    aside = {label for side in (first, second) for label in side.label[~side.judged]}
    return (
        first.assign(judged=~first.label.isin(aside)),
        second.assign(judged=~second.label.isin(aside)),
    )


def launches(table: pd.DataFrame, side: str) -> pd.DataFrame:
    """Every launch of one of the two of `agreeing` once; one setup and configuration a workload,
    or `CompareError`. Peers, bare kernels and controls are left out."""
    if table.empty:
        raise CompareError(f"the {side} holds no launch: its files have no measurements in them")
    table = table[table.judged]
    if table.empty:
        raise CompareError(
            f"the {side} holds peers, bare kernels and controls alone, on which there is no "
            "verdict; `python -m dlbench.report show` tells what they measured"
        )
    found = table.drop_duplicates(["label", "created", "fingerprint"])
    repeated = found[found.duplicated(["label", "file"])]
    if not repeated.empty:
        one = repeated.iloc[0]
        raise CompareError(
            f"{one.file} holds several results of '{one.label}': a file is one launch, and what it "
            "measures needs names that tell its workloads apart"
        )
    setups = found.groupby("label").fingerprint.unique()
    for label, fingerprints in setups.items():
        if len(fingerprints) > 1:
            named = "; ".join(
                f"{fingerprint} in {_some(found[found.fingerprint == fingerprint].file)}"
                for fingerprint in fingerprints
            )
            raise CompareError(
                f"the {side} holds launches of '{label}' from {len(fingerprints)} setups, by their "
                f"fingerprints: {named}; give files of one setup on each side"
            )
    for label, group in found.groupby("label", sort=False):
        _refuse_several_configurations(group, f"the {side} holds launches of '{label}'")
    return found


def _refuse_several_configurations(launches: pd.DataFrame, what: str) -> None:
    known = launches[launches.record.notna()]
    if not (parts := particulars.parted(list(known.record))):
        return
    named = "; ".join(f"{told} in {_some(known.file.iloc[own])}" for told, own in parts.items())
    raise CompareError(
        f"{what} that did different work: {named}; give files of one configuration on each side"
    )


def _labels(table: pd.DataFrame) -> list[str]:
    return [tables.label(row) for row in table[list(tables.WORKLOAD)].to_dict("records")]


def _some(files: pd.Series, most: int = 3) -> str:
    named = list(dict.fromkeys(files))
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")


def nothing_in_common(old: list[str], new: list[str]) -> str:
    """What is said of two sides without a label in common."""

    def named(labels: list[str]) -> str:
        return "; ".join(labels[:5]) + (f"; and {len(labels) - 5} more" if len(labels) > 5 else "")

    return (
        "the two sides have no workload in common, and all that defines one has to be the same. "
        f"Baseline: {named(old)}. Candidate: {named(new)}"
    )


def refuse_shared(before: pd.DataFrame, after: pd.DataFrame) -> None:
    """Raise `CompareError` if a launch is on both sides."""
    both = before.merge(after, on=["label", "created", "fingerprint"], suffixes=("", "_candidate"))
    if not both.empty:
        one, other = both.iloc[0][["file", "file_candidate"]]
        files = one if one == other else f"{one} and {other}"
        raise CompareError(
            f"{len(both)} launches are on both sides, the first from {files}; give each side its "
            "own files"
        )
