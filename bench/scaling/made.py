"""Generated questions with a known structure, and their vectors as the embedding would leave them.

Of every ten questions one repeats its predecessor in capitals, and two are near copies of theirs:
the last two words and a little of the vector differ. Every hundredth, as far as the benchmark has
any, is a benchmark question word for word. All else is far apart.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

WORDS = 40  # of a question; its answer has as many
IN_CAPITALS, NEAR_COPIES = 7, (4, 9)  # of ten
LEAK_EVERY = 100
NUM_ITEMS = 3_000  # of the benchmark
AT_ONCE = 2_000  # about a cache file of the embedding
_VOCABULARY = np.array([a + b + c for a in "bdfglmnprst" for b in "aeiou" for c in "bdfglmnprst"])


def going(num: int) -> dict[str, int]:
    """Rows that must go, by stage."""
    return {"curate": 3 * (num // 10), "decontaminate": min(NUM_ITEMS, num // LEAK_EVERY)}


def write(num: int, folder: Path) -> None:
    """Write the questions and the benchmark, and lay the vectors of both into the runs' cache."""
    random = np.random.default_rng(0)
    items: list[str] = []
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        for start in range(0, num, AT_ONCE):
            texts, rows = _questions(min(AT_ONCE, num - start), random)
            for place, text in enumerate(texts, start):
                answer = " ".join(["so"] * (WORDS - place % 5))
                file.write(json.dumps({"instruction": text, "output": answer}) + "\n")
            items += texts[::LEAK_EVERY]
            asked = [place for place in range(len(texts)) if place % 10 != IN_CAPITALS]
            _shelve([texts[place] for place in asked], rows[asked], folder, start)
    items = items[:NUM_ITEMS]
    others = _texts(_words(NUM_ITEMS - len(items), random))
    if others:
        _shelve(others, _unit(random.normal(size=(len(others), 384))), folder, num)
    with (folder / "benchmark.jsonl").open("w", encoding="utf-8") as file:
        for item in items + others:
            file.write(json.dumps({"question": item, "answer": "so"}) + "\n")


def _questions(num: int, random: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """`num` texts, a multiple of ten, and (num, 384) unit rows."""
    words, rows = _words(num, random), random.normal(size=(num, 384))
    copies = np.flatnonzero(np.isin(np.arange(num) % 10, NEAR_COPIES))
    words[copies, :-2] = words[copies - 1, :-2]
    rows[copies] = rows[copies - 1] + 0.4 * rows[copies]
    texts = _texts(words)
    texts[IN_CAPITALS::10] = [text.upper() for text in texts[IN_CAPITALS - 1 :: 10]]
    return texts, _unit(rows)


def _words(num: int, random: np.random.Generator) -> np.ndarray:
    return _VOCABULARY[random.integers(0, len(_VOCABULARY), (num, WORDS))]


def _texts(words: np.ndarray) -> list[str]:
    return [" ".join(each) for each in words]


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _shelve(texts: Sequence[str], rows: np.ndarray, folder: Path, number: int) -> None:
    """One file of vectors as embed.py keeps them; the quick and the exact ones are the same."""
    from safetensors.numpy import save_file

    from monotreme.embed import shelf_folder
    from monotreme.encoders import BUILT_IN, find_encoder
    from monotreme.records import digest

    encoder, cache = find_encoder(BUILT_IN, Path(), str), folder / "runs" / ".cache" / "embeddings"
    quick, exact = (shelf_folder(cache, encoder, which) for which in (False, True))
    keys = np.frombuffer(bytes.fromhex("".join(map(digest, texts))), np.uint8).reshape(-1, 32)
    shard = {"keys": keys, "counts": np.ones(len(texts), np.int64), "vectors": rows}
    quick.mkdir(parents=True, exist_ok=True)
    save_file(shard, quick / f"{number:09}.safetensors")
    if exact != quick:
        exact.mkdir(parents=True, exist_ok=True)
        os.link(quick / f"{number:09}.safetensors", exact / f"{number:09}.safetensors")
