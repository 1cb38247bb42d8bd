"""The questions of a training: encoded once, kept in the cache, mapped into memory; some held out.

The encoded set stands in the cache under what it depends on: the questions, the tokenizer's files and
the limit. Several processes, and a training that goes on, read it instead of encoding again.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from monotreme.records import Dropped, Question, digest, read_questions
from monotreme.run import Run
from monotreme.storage import remove, sha256, storage_errors, writing
from monotreme.train.encode import Encoded, encode, load_tokenizer

LAYOUT = "1"  # of the cached files and of what `encode` makes; another one is another set
ARRAYS = ("ids", "is_answer", "offsets")
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "config.json", "*.model")


@dataclass(frozen=True)
class Data:
    """What a training reads.

    Attributes:
        encoded: the questions that are trained on; questions are the same.
        held_out: those that only the validation loss is measured on.
        dropped: what neither has, and why.
    """

    encoded: Encoded
    questions: list[Question]
    held_out: Encoded
    dropped: list[Dropped]


def training_data(run: Run, tokenizer_folder: Path, limit: int) -> Data:
    """The questions that decontaminate left, as the base's tokenizer gives them.

    Args:
        limit: tokens of a question at most.

    Raises:
        InputError: the tokenizer cannot be used.
    """
    path = run.output("decontaminate", "questions.parquet")
    questions = read_questions(path)
    key = digest(LAYOUT, sha256(path), _tokenizer_digest(tokenizer_folder), str(limit))
    folder = run.cache("encoded") / key[:16]
    with _alone(run.cache("encoded.lock")):
        found = _opened(folder)
        if found is None:
            tokenizer = load_tokenizer(tokenizer_folder, run.recipe.train.base.trust_remote_code)
            _write(folder, questions, *encode(tokenizer, questions, limit))
            found = _opened(folder)
            assert found is not None  # it was just written
    encoded, kept, reasons = found
    dropped = [Dropped(questions[i], reason, detail) for i, reason, detail in reasons]
    return _split(
        encoded, [questions[i] for i in kept], dropped, run.recipe.train.validation, run.recipe.seed
    )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait while another process, such as the next rank, makes or mends what this one would."""
    with storage_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock).acquire()
    with held:
        yield


def _tokenizer_digest(folder: Path) -> str:
    """Of all files that decide what a text becomes, and of the library that reads them."""
    files = sorted({path for pattern in TOKENIZER for path in folder.glob(pattern)})
    parts = [part for path in files for part in (path.name, sha256(path))]
    return digest(*parts, version("tokenizers"), version("transformers"))


def _write(
    folder: Path,
    questions: Sequence[Question],
    encoded: Encoded,
    kept: Sequence[Question],
    dropped: Sequence[Dropped],
) -> None:
    places = {id(question): i for i, question in enumerate(questions)}
    about = {
        "digest": encoded.digest,
        "kept": [places[id(question)] for question in kept],
        "dropped": [(places[id(one.question)], one.reason, one.detail) for one in dropped],
    }
    with writing(folder) as temporary:
        temporary.mkdir()
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(encoded, name))
        (temporary / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _opened(folder: Path) -> tuple[Encoded, list[int], list[tuple[int, str, str]]] | None:
    """The cached set, mapped; None where there is none, or where it is not what was written."""
    if not folder.exists():
        return None
    try:
        about: dict[str, Any] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        encoded = Encoded(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS))
        if encoded.digest == about["digest"]:
            return encoded, about["kept"], about["dropped"]
    except (OSError, ValueError, KeyError):
        pass
    remove(folder)  # damaged: it costs encoding again
    return None


def _split(
    encoded: Encoded, questions: list[Question], dropped: list[Dropped], share: float, seed: int
) -> Data:
    held = held_out(questions, share, seed)
    if not len(held):
        return Data(encoded, questions, encoded.take(held), dropped)
    rest = np.setdiff1d(np.arange(len(questions)), held)
    dropped = [
        *dropped,
        *(Dropped(questions[i], "held_out", f"validation = {share:g}") for i in held),
    ]
    return Data(encoded.take(rest), [questions[i] for i in rest], encoded.take(held), dropped)


def held_out(questions: Sequence[Question], share: float, seed: int) -> NDArray[np.int64]:
    """Which questions are held out, ascending: a share of them, drawn by hash of seed and question.

    So another question in the set hardly changes who is drawn. At least one where a share is asked
    for, and never the last one.
    """
    if not share:
        return np.empty(0, np.int64)
    num = min(max(1, round(share * len(questions))), len(questions) - 1)
    draws = [digest("validation", str(seed), question.id) for question in questions]
    return np.sort(np.argsort(draws, kind="stable")[:num])
