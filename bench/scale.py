"""How the time and memory of `curate` grow with the number of questions, to a million.

    python bench/scale.py [--quick | --sizes 10000 30000 100000 300000 1000000]

The whole stage runs, each size in a fresh process, on generated questions whose vectors are
generated too and lie in the cache as if they had been embedded (embedding is linear: bench/curate.py
measures its rate). Every fifth question is a near copy of its predecessor, so what must be dropped
is known and is checked. Prints seconds, peak memory, and a fit (comparing: n and n², the rest: n),
checked at the largest size, on which it was not fitted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

LIMIT_GIB = 8.0  # what a million questions may take
WORDS = 40  # of a question; its answer has as many


def question(row: int) -> str:
    """Words that no other question has, so that texts differ and normal forms do too."""
    return " ".join(f"w{(row * WORDS + k):x}" for k in range(WORDS))


def vectors(num: int) -> np.ndarray:
    """Unit rows of which every fifth is a near copy of its predecessor; others are far apart."""
    random = np.random.default_rng(0)
    rows = np.empty((num, 384), np.float32)
    for start in range(0, num, 50_000):  # random numbers are float64: not all of them at once
        rows[start : start + 50_000] = random.normal(size=(min(50_000, num - start), 384))
    copies = np.arange(4, num, 5)
    rows[copies] = rows[copies - 1] + 0.4 * rows[copies]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def prepare(num: int, folder: Path) -> None:
    """The questions as a file, and their vectors as the embedding would leave them."""
    from safetensors.numpy import save_file

    from monotreme.embed import SHARD_TEXTS, shelf_folder
    from monotreme.encoders import BUILT_IN, find_encoder
    from monotreme.records import digest

    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        for row in range(num):
            answer = " ".join(["so"] * (WORDS - row % 5))
            file.write(json.dumps({"instruction": question(row), "output": answer}) + "\n")
    encoder = find_encoder(BUILT_IN, Path(), str)
    rows = vectors(num)
    for exact in (False, True):
        shelf = shelf_folder(folder / "runs" / ".cache" / "embeddings", encoder, exact)
        shelf.mkdir(parents=True, exist_ok=True)
        for start in range(0, num, SHARD_TEXTS):
            part = rows[start : start + SHARD_TEXTS]
            names = bytes.fromhex("".join(digest(question(start + i)) for i in range(len(part))))
            keys = np.frombuffer(names, np.uint8).reshape(-1, 32)
            counts = np.ones(len(part), np.int64)
            shard = {"keys": keys, "counts": counts, "vectors": part}
            save_file(shard, shelf / f"{start:012}.safetensors")


def curated(folder: Path) -> dict[str, Any]:
    """Run the stage; its seconds by phase, peak memory and counts."""
    from monotreme import curate
    from monotreme.recipe import check_recipe
    from monotreme.run import Run

    source = {"id": "mine", "path": str(folder / "questions.jsonl"), "license": "CC0-1.0"}
    recipe = {"name": "scale", "curate": {"sources": [source]}, "train": {"base": "./none"}}
    run = Run(folder / "runs" / "scale", check_recipe(recipe, "scale"), folder)
    spent: dict[str, float] = {}

    @contextmanager
    def lap(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        spent[name] = time.perf_counter() - started

    near = curate.similar_within

    def timed(*arguments: Any) -> Any:
        with lap("compare"):
            return near(*arguments)

    curate.similar_within = timed
    with lap("all"):
        curate.execute(run)
    record = run.record("curate")
    return {
        "compare": spent["compare"],
        "all": spent["all"],
        "gib": record["peak_bytes"] / 2**30,
        "kept": record["counts"]["kept"],
        "facts": record["facts"],
    }


def measured(num: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        for step in ("prepare", "curate"):  # memory of the preparation is not the stage's
            command = [sys.executable, __file__, "--step", step, str(num), folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{step} of {num:,} failed:\n{done.stderr[-2_000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    expected = num - num // 5
    if result["kept"] != expected:
        sys.exit(f"{result['kept']:,} of {num:,} were kept where {expected:,} should be")
    return result


def fit(sizes: list[int], seconds: list[float], powers: tuple[int, ...]) -> np.ndarray:
    """Coefficients of the powers of n, by least squares in which every size counts alike."""
    columns = np.array([[n**power for power in powers] for n in map(float, sizes)])
    weights = 1 / np.array(seconds)
    return np.linalg.lstsq(columns * weights[:, None], np.ones(len(sizes)), rcond=None)[0]


def foretold(sizes: list[int], results: list[dict[str, Any]]) -> float:
    """Seconds of the largest size, by a fit to the others; the fit is printed."""
    compare = [found["compare"] for found in results]
    rest = [found["all"] - found["compare"] for found in results]
    per_question, per_pair = fit(sizes[:-1], compare[:-1], (1, 2))
    start, each = fit(sizes[:-1], rest[:-1], (0, 1))
    print(f"comparing: {per_question * 1e6:.1f} µs a question + {per_pair * 1e9:.3f} ns · n²")
    print(f"the rest:  {start:.2f} s + {each * 1e6:.1f} µs a question")
    n = sizes[-1]
    return float(per_question * n + per_pair * n**2 + start + each * n)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    whole = [10_000, 30_000, 100_000, 300_000, 1_000_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--whole", action="store_true", help=f"{whole[0]:,} to {whole[-1]:,}")
    parser.add_argument("--quick", action="store_true", help="up to 20,000, under a minute")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, num, folder = options.step
        if step == "prepare":
            prepare(int(num), Path(folder))
        else:
            print(json.dumps(curated(Path(folder))))
        return
    sizes = [5_000, 10_000, 20_000] if options.quick else whole if options.whole else options.sizes
    print(f"{'questions':>10}{'compare s':>11}{'rest s':>9}{'peak GiB':>10}{'kept':>10}")
    results = []
    for num in sizes:
        results.append(measured(num))
        found = results[-1]
        rest = found["all"] - found["compare"]
        cells = f"{found['compare']:>11.1f}{rest:>9.1f}{found['gib']:>10.2f}{found['kept']:>10,}"
        print(f"{num:>10,}{cells}", flush=True)
    print(f"foretold for {sizes[-1]:,}: {foretold(sizes, results):.0f} s; ", end="")
    print(f"measured {results[-1]['all']:.0f} s")
    peak = results[-1]["gib"]
    line = {
        "name": "scale", "ours": peak, "peers": {}, "ratio": None, "target": LIMIT_GIB,
        "met": peak <= LIMIT_GIB, "floor_share": None,
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
