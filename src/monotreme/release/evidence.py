"""What the stages left, as the cards read it: nothing here is a claim that no record makes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MEAN = "mean"  # the row of scores.json that is no benchmark


@dataclass(frozen=True)
class Scored:
    """A benchmark that was read from the Hub.

    Attributes:
        name: of the data set there; config, split: which part of it.
        revision: its commit.
        whole: whether all of the split's questions were asked.
    """

    name: str
    config: str | None
    split: str
    revision: str
    whole: bool


@dataclass(frozen=True)
class DataFile:
    """A Parquet file of the released set, as it was written.

    Attributes:
        path: in the set's folder.
        columns: name → type, "string" or "bool".
        num_bytes: of the table in memory; file_bytes: of the file.
    """

    path: str
    columns: dict[str, str]
    num_rows: int
    num_bytes: int
    file_bytes: int
    sha256: str


@dataclass(frozen=True)
class Evidence:
    """What the stages left, in plain JSON.

    Attributes:
        release: the recipe's `release` table.
        records: record.json by stage.
        leaks: decontaminate/leaks.json.
        self_test: figures of the planted leaks; empty where that was not measured.
        scores: evaluate/scores.json.
        scored: the benchmarks among them that are Hub data sets, by id.
        sources: one row a source, as `source_rows` makes them.
        base: Hub name of the base model, None where it is a local folder.
        base_digest: its commit or the SHA-256 of its folder.
        revisions: Hub commits that this run has resolved.
    """

    name: str
    seed: int
    release: dict[str, Any]
    records: dict[str, dict[str, Any]]
    leaks: dict[str, Any]
    self_test: list[dict[str, Any]]
    scores: dict[str, Any]
    scored: dict[str, Scored]
    sources: list[dict[str, Any]]
    base: str | None
    base_digest: str
    revisions: dict[str, str]

    @property
    def title(self) -> str:
        return str(self.release["title"] or self.name)

    def own_files(self) -> list[str]:
        """Paths of the recipe that only its maker has: sources and benchmarks from local files."""
        named = (
            *self.records["curate"]["settings"]["sources"],
            *self.records["decontaminate"]["settings"]["benchmarks"],
        )
        paths = (ref.get("path") or "" for ref in named)
        return [path for path in paths if path and not path.startswith("pocket:")]

    @property
    def num_questions(self) -> int:
        return sum(row["released"] for row in self.sources)


def source_rows(
    released: Iterable[tuple[str, str, bool]],
    curated: Mapping[str, Any],
    leaked: Mapping[str, int],
) -> list[dict[str, Any]]:
    """One row a source: released rows, licences, LLM-written rows, and what was dropped before.

    Args:
        released: (source, license, llm_written) of every released question.
        curated: curate's record.
        leaked: source → questions dropped as leaks.
    """
    counts, inputs = curated["counts"]["by_source"], curated["inputs"]
    groups: dict[str, list[tuple[str, bool]]] = {source: [] for source in counts}
    for source, license_, llm_written in released:
        groups.setdefault(source, []).append((license_, llm_written))
    return [
        {
            "source": source,
            "digest": inputs.get(f"sources/{source}"),
            "read": counts.get(source, {}).get("read"),
            "curated_away": counts.get(source, {}).get("dropped"),
            "leaked": leaked.get(source, 0),
            "released": len(rows),
            "licenses": dict(Counter(license_ for license_, _ in rows)),
            "llm_written": sum(llm_written for _, llm_written in rows),
        }
        for source, rows in groups.items()
    ]


def score_rows(scores: Mapping[str, Any], model: str) -> list[dict[str, Any]]:
    """A model's scores beside the base's, with the paired delta where one was measured."""

    def of(table: str, name: str) -> dict[str, dict[str, Any]]:
        return {row["benchmark"]: row for row in scores[table] if row["model"] == name}

    base, deltas = of("scores", "base"), of("deltas", model)
    return [
        {**row, "base": base.get(benchmark), "delta": deltas.get(benchmark)}
        for benchmark, row in of("scores", model).items()
    ]


def on_hub(identity: str | None) -> tuple[str, str] | None:
    """Name and commit of what a record calls `name@commit`; a local one has a bare SHA-256."""
    name, at, commit = (identity or "").rpartition("@")
    return (name, commit) if at else None
