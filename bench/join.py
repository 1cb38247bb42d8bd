"""The exact join of neighbors.py against the ways people do it now, on the same vectors in one run.

    python bench/join.py [--quick | --large]

Peers: the original's row loop (one matrix-vector product a row), sentence-transformers'
paraphrase_mining_embeddings. Vectors are generated: clusters of near-duplicates in 384 dimensions
with a known number of pairs. The floor is the matrix product alone at this machine's measured rate.
Processors with AMX run bf16 tiles; the same join with float32 tiles is timed beside it and must give
the same bytes. --large is 100,000 rows without the peers, and the memory that takes.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch

from monotreme import machine
from monotreme.embed import Vectors
from monotreme.neighbors import Pairs, joined, pairs_within

THRESHOLD = 0.8


def vectors(num: int, seed: int = 0) -> np.ndarray:
    """Unit rows of which every fifth is a near copy of its predecessor."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(num, 384))
    copies = np.arange(4, num, 5)
    rows[copies] = rows[copies - 1] + random.normal(scale=0.4, size=(len(copies), 384))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def ours(rows: np.ndarray) -> Pairs:
    return joined(list(pairs_within(Vectors(rows, np.arange(len(rows))), THRESHOLD)))


def ours_in_float32(rows: np.ndarray) -> Pairs:
    has_amx, machine.has_amx = machine.has_amx, lambda: False
    try:
        return ours(rows)
    finally:
        machine.has_amx = has_amx


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


def row_loop(rows: np.ndarray) -> set[tuple[int, int]]:
    found = set()
    for i in range(len(rows) - 1):
        for j in np.flatnonzero(rows[i + 1 :] @ rows[i] > THRESHOLD).tolist():
            found.add((i, i + 1 + j))
    return found


def mining(rows: np.ndarray) -> set[tuple[int, int]]:
    from sentence_transformers.util import paraphrase_mining_embeddings  # 500 MB by itself

    found = paraphrase_mining_embeddings(torch.from_numpy(rows), top_k=100)
    return {(min(i, j), max(i, j)) for score, i, j in found if score > THRESHOLD}


def seconds(task: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of the clock and of the processor over all threads, the fair measure."""
    clock, processor = [], []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        task()
        clock.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    return median(clock), median(processor)


def floor(num: int, dtype: torch.dtype) -> float:
    """Processor seconds of the products of one triangle of tiles, nothing else."""
    left, right = torch.randn(1024, 384).to(dtype), torch.randn(2048, 384).to(dtype)
    out = torch.empty(1024, 2048, dtype=dtype)  # in place: new memory for each product is no floor
    task = partial(torch.mm, left, right.T, out=out)
    best = min(seconds(lambda: [task() for _ in range(20)], 1)[1] for _ in range(10))
    return best / 20 * num**2 / 2 / 2**21


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--large", action="store_true", help="100,000 rows, ours alone")
    options = parser.parse_args()
    num = 5_000 if options.quick else 100_000 if options.large else 25_000
    rows = vectors(num)
    expected, plain = ours(rows), ours_in_float32(rows)
    if any(a.tobytes() != b.tobytes() for a, b in zip(expected, plain, strict=True)):
        raise SystemExit("the precision of the tiles changed the pairs")
    times = {
        "monotreme": seconds(lambda: ours(rows), 3),
        "monotreme, float32 tiles": seconds(lambda: ours_in_float32(rows), 3),
    }
    peers = {} if options.large else {"row loop": row_loop, "paraphrase_mining_embeddings": mining}
    missed = {}
    for name, peer in peers.items():
        found: list[set[tuple[int, int]]] = []
        times[name] = seconds(lambda peer=peer, found=found: found.append(peer(rows)), 1)
        missed[name] = len(as_set(expected) - found[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{num:,} rows, {len(expected.left):,} pairs over {THRESHOLD}; peak {peak:.2f} GiB")
    print(f"  {'':<30} {'clock s':>8} {'processor s':>12}")
    for name, (clock, processor) in times.items():
        print(f"  {name:<30} {clock:8.2f} {processor:12.2f}   missed {missed.get(name, 0)}")
    mine = times["monotreme"][1]
    best = min((times[name][1] for name in peers), default=None)
    dtype = torch.bfloat16 if machine.has_amx() else torch.float32
    line = {
        "name": "join", "ours": mine, "peers": {name: times[name][1] for name in peers},
        "ratio": best and best / mine, "target": 2.0, "met": best is None or best / mine >= 2.0,
        "floor_share": floor(num, dtype) / mine,
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
