"""Others on the same rows: datatrove's MinHash on the texts, semhash on the vectors.

    python peers.py WAY FOLDER NUM

Each with its own defaults but for the threshold, in a fresh process; what it drops is compared with
what was planted.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from scaling.made import IN_CAPITALS, NEAR_COPIES

THRESHOLD = 0.8


def datatrove(folder: Path, num: int) -> set[int]:
    """MinHash as its documentation has it: 14 buckets of 8 hashes over runs of 5 words."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    work = folder / "minhash"
    signatures, buckets, gone, kept = (
        str(work / name) for name in ("signatures", "buckets", "gone", "kept")
    )

    def reader() -> JsonlReader:
        return JsonlReader(
            str(folder), text_key="instruction", glob_pattern="questions.jsonl", id_key="none"
        )

    steps = [
        [reader(), MinhashDedupSignature(signatures)],
        [MinhashDedupBuckets(signatures, buckets)],
        [MinhashDedupCluster(buckets, gone)],
        [reader(), MinhashDedupFilter(gone), JsonlWriter(kept, compression=None)],
    ]
    for number, step in enumerate(steps):
        tasks = 14 if number == 1 else 1  # a bucket each
        LocalPipelineExecutor(
            step, tasks=tasks, workers=1, logging_dir=str(work / f"log{number}")
        ).run()
    stay = set()
    for file in Path(kept).glob("*.jsonl"):
        with file.open(encoding="utf-8") as lines:
            stay |= {int(json.loads(line)["id"].rsplit("/", 1)[1]) for line in lines}
    return set(range(num)) - stay


def semhash(folder: Path, num: int) -> set[int]:
    """With the same vectors; a text in capitals has those of its twin."""
    from safetensors.numpy import load_file
    from semhash import SemHash

    shelf = min((folder / "runs" / ".cache" / "embeddings").iterdir())
    files = sorted(shelf.glob("*.safetensors"))
    given = np.concatenate([load_file(file)["vectors"] for file in files])
    asked = np.cumsum(np.arange(num) % 10 != IN_CAPITALS) - 1  # the predecessor's for capitals
    with (folder / "questions.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["instruction"] for line in lines]
    index = SemHash.from_embeddings(given[asked], texts, model=None)  # asked only for new texts
    stay = set(index.self_deduplicate(THRESHOLD).selected)
    return {row for row, text in enumerate(texts) if text not in stay}


WAYS: dict[str, Callable[[Path, int], set[int]]] = {"datatrove": datatrove, "semhash": semhash}


def main() -> None:
    way, folder, num = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    try:
        gone = WAYS[way](folder, num)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    copies = {row + tenth for row in range(0, num, 10) for tenth in NEAR_COPIES}
    capitals = set(range(IN_CAPITALS, num, 10))
    twins = {row - 1 for row in copies | capitals}
    found = gone | {row + 1 for row in gone & twins}  # either of two may go
    counts = {
        "near copies": len(found & copies) / len(copies),
        "in capitals": len(found & capitals) / len(capitals),
        "others": len(gone - copies - capitals - twins),
    }
    print(json.dumps({"found": counts, "processor": time.process_time()}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
