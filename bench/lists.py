"""The join through lists of neighbors/lists.py against the exact join, on the same vectors in one run.

    python bench/lists.py [--quick | --million]

Three kinds of rows: real questions of ../shared/data, embedded here (passed over where that is
missing); rows grown around the real ones, of which every fifth is a near copy of its predecessor,
with a cosine of 0.7 to 1; and the same number of rows that keep no company but their copies, which
is the hardest for lists. Prints what each join took, and the recall: of all pairs, where the exact
join ran too, and of a sample with its interval, as a run of `curate` has it. Pairs that the exact
join has not, or has with another similarity, end the bench. --million is a million grown rows and
lists alone; it keeps its rows in a file, so that the memory it shows is the join's.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from monotreme.embed import Vectors, embed
from monotreme.encoders import BUILT_IN, find_encoder
from monotreme.neighbors import (
    Pairs,
    joined,
    make_lists,
    measure_recall,
    pairs_in_lists,
    pairs_within,
)

sys.path.insert(0, str(Path(__file__).parent))
from curate import SOURCES, sample  # a script beside this one

THRESHOLD = 0.8
TARGET = 0.995
BLOCK = 50_000  # rows made at a time: random numbers are float64


def real(num: int, folder: Path) -> Vectors:
    """Windows of real questions."""
    return embed(sample(num), find_encoder(BUILT_IN, Path(), str), folder)


def grown(parents: np.ndarray | None, num: int, folder: Path) -> Vectors:
    """Unit rows at a cosine of 0.6 from real ones, or anywhere; every fifth a copy of its predecessor."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryFile(dir=folder) as file:
        rows = np.memmap(file, np.float32, "w+", shape=(num, 384))
    for start in range(0, num, BLOCK):
        block = unit(random.normal(size=(min(BLOCK, num - start), 384)))
        noise = block.copy()
        if parents is not None:
            block = unit(
                0.6 * parents[random.integers(len(parents), size=len(block))] + 0.8 * block
            )
        copies = np.arange(4, len(block), 5)
        cosine = random.uniform(0.7, 1, size=(len(copies), 1))
        block[copies] = cosine * block[copies - 1] + np.sqrt(1 - cosine**2) * noise[copies]
        rows[start : start + len(block)] = unit(block)
    return Vectors(rows, np.arange(num))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(started: tuple[float, float]) -> str:
    return " / ".join(f"{now - then:.1f}" for now, then in zip(clock(), started, strict=True))


def missed(exact: Pairs, found: Pairs, num: int) -> float:
    """Share of the exact pairs that were not found."""
    keys, ours = (pairs.left * num + pairs.right for pairs in (exact, found))
    places = np.searchsorted(keys, ours)
    if (keys[places] != ours).any() or (exact.similarity[places] != found.similarity).any():
        raise SystemExit("the lists gave a pair that the exact join has not")
    return 1 - len(ours) / max(1, len(keys))


def measured(name: str, side: Vectors, folder: Path, with_exact: bool) -> dict[str, Any]:
    started = clock()
    lists = make_lists(side, THRESHOLD)
    making = since(started)
    found = joined(list(pairs_in_lists(side, lists, THRESHOLD, folder)))
    result: dict[str, Any] = {"lists": since(started), "seconds": clock()[1] - started[1]}
    started = clock()
    recall = measure_recall(side, [found], THRESHOLD)
    measuring = since(started)
    num = int(side.owner[-1]) + 1
    print(
        f"{name}: {num:,} texts, {len(side.rows):,} rows; {len(found.left):,} pairs found; ", end=""
    )
    print(f"{lists.num:,} lists, {lists.nearest.shape[1]} a row")
    print(f"  lists {result['lists']} s (of it making them {making}); measuring {measuring}")
    print(f"  recall of a sample {recall.share:.4f} ({recall.low:.4f}–{recall.high:.4f}), ", end="")
    print(f"{recall.num_pairs:,} pairs of {recall.num_texts:,} texts")
    result["recall"] = recall.share
    if with_exact:
        started = clock()
        exact = joined(list(pairs_within(side, THRESHOLD)))
        result["exact_seconds"] = clock()[1] - started[1]
        result["recall"] = 1 - missed(exact, found, num)
        print(
            f"  exact {since(started)} s; recall of all {len(exact.left):,}: {result['recall']:.4f}"
        )
    sys.stdout.flush()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--million", action="store_true", help="a million rows, lists alone")
    parser.add_argument("--cache", type=Path, help="where vectors of real questions are kept")
    options = parser.parse_args()
    num_real = 500 if options.quick else 25_000
    num = 20_000 if options.quick else 1_000_000 if options.million else 100_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parents = None
        results = []
        print("seconds are those of the clock / of the processor over all threads")
        if SOURCES.is_dir():
            side = real(num_real, options.cache or folder)
            parents = side.rows
            if not options.million:
                results.append(measured("real questions", side, folder, True))
        else:
            print(f"no real questions at {SOURCES}: passed over")
        side = grown(parents, num, folder)
        results.append(measured("around real ones", side, folder, not options.million))
        if not options.million:
            results.append(measured("anywhere", grown(None, num, folder), folder, True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak {peak:.2f} GiB, with what is mapped of the rows")
    last = results[-1]
    recall = min(result["recall"] for result in results)
    line = {
        "name": "lists", "ours": last["seconds"], "peers": {"exact join": last.get("exact_seconds")},
        "ratio": None if options.million else last["exact_seconds"] / last["seconds"],
        "target": TARGET, "met": recall >= TARGET, "recall": recall, "floor_share": None,
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
