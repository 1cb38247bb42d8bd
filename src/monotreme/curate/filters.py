"""What the recipe's switches leave out: licences, authorship, replaced problems, keywords."""

from collections.abc import Collection, Sequence

import numpy as np

from monotreme.curate.fates import Fates
from monotreme.curate.reading import Rows
from monotreme.licenses import COMMERCIAL, permits
from monotreme.recipe import Curate, SourceRef
from monotreme.sources import source_of

HEAVY_LOSS = 0.8  # share of a source's rows: a larger loss is said aloud


def drop_unfree(
    rows: Rows, fates: Fates, refs: Sequence[SourceRef], licenses: str | Collection[str]
) -> None:
    """Drop what the licences do not permit: `any`, `commercial`, or SPDX identifiers."""
    if licenses == "any":
        return
    allowed = COMMERCIAL if licenses == "commercial" else licenses
    for number, ref in enumerate(refs):
        name = source_of(ref).license
        if not permits(name, allowed):
            gone = np.flatnonzero(fates.stays & (rows.source == number))
            fates.drop(gone, "license", f"{name} is not among the licences allowed")


def drop_model_written(rows: Rows, fates: Fates, refs: Sequence[SourceRef]) -> None:
    """Drop what a language model answered."""
    written = [number for number, ref in enumerate(refs) if source_of(ref).llm_written]
    gone = np.flatnonzero(fates.stays & np.isin(rows.source, written))
    fates.drop(gone, "llm_written", "a language model wrote the answer")


def drop_replaced(rows: Rows, fates: Fates, rank: np.ndarray, better: str, worse: str) -> None:
    """Drop questions of source `worse` that source `better` has too (PRM800K's MATH problems)."""
    if better not in rows.sources or worse not in rows.sources:
        return
    there = fates.stays & (rows.source == rows.sources.index(better))
    here = np.flatnonzero(fates.stays & (rows.source == rows.sources.index(worse)))
    twin = first_with(rows.normal, np.flatnonzero(there), rank, rows.normal[here])
    found = twin >= 0
    fates.drop(here[found], "replaced", f"{better} has this problem", twin[found], 1.0)


def first_with(
    normal: np.ndarray, among: np.ndarray, rank: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """The first in rank of some rows that has a normal form, for each that is asked for; or -1.

    Args:
        normal: (N,) normal forms.
        among: rows to choose from.
        rank: (N,) lower is first.
        asked: (Q,) normal forms.

    Returns:
        (Q,) int64 rows.
    """
    ordered = among[np.argsort(rank[among])]
    forms, first = np.unique(normal[ordered], return_index=True)
    if not len(forms):
        return np.full(len(asked), -1, np.int64)
    place = np.minimum(np.searchsorted(forms, asked), len(forms) - 1)
    return np.where(forms[place] == asked, ordered[first[place]], -1)


def apply_switches(
    table: Curate, refs: Sequence[SourceRef], rows: Rows, fates: Fates, rank: np.ndarray
) -> None:
    """Licences, authorship, replaced problems and the keyword search, by the recipe's switches.

    Args:
        refs: of `rows.sources`, in their order.
        rank: (N,) of two rows, which comes first.
    """
    drop_unfree(rows, fates, refs, table.licenses)
    if table.llm_written == "drop":
        drop_model_written(rows, fates, refs)
    for ref in refs:
        if worse := source_of(ref).replaces:
            drop_replaced(rows, fates, rank, ref.id, worse)
    gone = np.flatnonzero(fates.stays & ~rows.keyword)
    fates.drop(gone, "no_keyword", "no STEM or logic keyword in question or answer")


def heavy_losses(rows: Rows, fates: Fates) -> list[str]:
    """A line for each source that lost more than 80 % of its rows, with the commonest reason."""
    lines = []
    for number, source in enumerate(rows.sources):
        here = fates.reason[rows.source == number]
        reasons, nums = np.unique(here[here != ""], return_counts=True)
        if nums.sum() > HEAVY_LOSS * len(here):
            most = int(np.argmax(nums))
            lines.append(
                f"{source} lost {nums.sum() / len(here):.0%} of its {len(here):,} rows, "
                f"most of them ({nums[most]:,}) as {reasons[most]}"
            )
    return lines
