"""The exact join of neighbors.py against the ways people do it now, on the same vectors in one run.

    python bench/join.py [--quick]

Peers: the original's row loop (one matrix-vector product a row), sentence-transformers'
paraphrase_mining_embeddings. Vectors are generated: clusters of near-duplicates in 384 dimensions
with a known number of pairs. The floor is the matrix product alone at this machine's measured rate.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from sentence_transformers.util import paraphrase_mining_embeddings

from monotreme.embed import Vectors
from monotreme.neighbors import joined, pairs_within

THRESHOLD = 0.8


def vectors(num: int, seed: int = 0) -> np.ndarray:
    """Unit rows of which every fifth is a near copy of its predecessor."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(num, 384))
    copies = np.arange(4, num, 5)
    rows[copies] = rows[copies - 1] + random.normal(scale=0.4, size=(len(copies), 384))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def ours(rows: np.ndarray) -> set[tuple[int, int]]:
    pairs = joined(list(pairs_within(Vectors(rows, np.arange(len(rows))), THRESHOLD)))
    return set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


def row_loop(rows: np.ndarray) -> set[tuple[int, int]]:
    found = set()
    for i in range(len(rows) - 1):
        for j in np.flatnonzero(rows[i + 1 :] @ rows[i] > THRESHOLD).tolist():
            found.add((i, i + 1 + j))
    return found


def mining(rows: np.ndarray) -> set[tuple[int, int]]:
    found = paraphrase_mining_embeddings(torch.from_numpy(rows), top_k=100)
    return {(min(i, j), max(i, j)) for score, i, j in found if score > THRESHOLD}


def seconds(task: Callable[[], object], repeats: int) -> float:
    """Median processor seconds over all threads: the fair measure on a busy machine."""
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        task()
        spent.append(time.process_time() - started)
    return median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under a minute")
    quick = parser.parse_args().quick
    num, repeats = (5_000, 3) if quick else (25_000, 3)
    rows = vectors(num)
    expected = ours(rows)
    peers = {"row loop": row_loop, "paraphrase_mining_embeddings": mining}
    mine = seconds(lambda: ours(rows), repeats)
    matrix = torch.from_numpy(rows)
    floor = seconds(lambda: matrix[:2048] @ matrix[:2048].T, repeats) * (num / 2048) ** 2 / 2
    times = {name: seconds(lambda peer=peer: peer(rows), 1) for name, peer in peers.items()}
    missed = {name: len(expected - peer(rows[:])) for name, peer in peers.items()}
    best = min(times.values())
    print(f"{num:,} rows, {len(expected):,} pairs over {THRESHOLD}; processor seconds")
    for name, spent in {"monotreme": mine, **times}.items():
        print(f"  {name:<30} {spent:8.2f}   missed {missed.get(name, 0)}")
    line = {
        "name": "join", "ours": mine, "peers": times, "ratio": best / mine, "target": 2.0,
        "met": best / mine >= 2.0, "floor_share": floor / mine,
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
