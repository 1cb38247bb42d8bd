"""The questions of the pocket room: training sources, benchmark, and what is planted in them.

All of it is a pure function of one seed. Training, benchmark and validation never share the key
of a problem, so a right answer on the benchmark is generalisation: the knowledge was read in
prose or the skill was practised on other instances.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from monotreme.pocket import arithmetic, conclusions, logic, science
from monotreme.pocket.planting import Planted, plant_duplicates, plant_leaks
from monotreme.pocket.problem import Asked, Problem, normalised
from monotreme.pocket.prose import SPOKEN, dialogues, passages

SEED = 2308
SUBJECTS = ("science", "arithmetic", "logic")
NUM_TRAINING = {"science": 500, "arithmetic": 800, "logic": 500}
NUM_BENCHMARK = 200
NUM_VALIDATION = 100
NUM_CANDIDATES = {"arithmetic": 1680, "logic": 1720}

# How many benchmark and validation questions are conclusions.
NUM_CONCLUSIONS = {"science": (100, 40), "arithmetic": (0, 0), "logic": (150, 60)}
NUM_TEXTS = 200

Row = dict[str, str]


@dataclass(frozen=True)
class Pools:
    """Problems by use; no key in two of them."""

    training: list[Problem]
    benchmark: list[Problem]
    validation: list[Problem]


@dataclass(frozen=True)
class Data:
    """All that is shipped but the general texts: rows of each file."""

    sources: dict[str, list[Row]]
    planted: list[Planted]
    benchmark: list[dict[str, object]]
    validation: list[dict[str, object]]


def pools(seed: int = SEED) -> Pools:
    """Problems of all subjects, split by key before anything is written."""
    found = Pools([], [], [])
    for subject in SUBJECTS:
        rng = random.Random(f"{seed} {subject}")
        plain = _split(rng, _candidates(rng, subject), NUM_BENCHMARK, NUM_VALIDATION)
        concluded = _split(rng, conclusions.problems(rng, subject), *NUM_CONCLUSIONS[subject])
        found.training.extend(plain.training[: NUM_TRAINING[subject]] + concluded.training)
        for use, size in (("benchmark", NUM_BENCHMARK), ("validation", NUM_VALIDATION)):
            new, old = getattr(concluded, use), getattr(plain, use)
            getattr(found, use).extend(new + old[: size - len(new)])
    return found


def _split(
    rng: random.Random, problems: list[Problem], num_benchmark: int, num_validation: int
) -> Pools:
    """Keys at random: some for each use, one problem a key where it is held out."""
    by_key = _by_key(rng, problems)
    keys = sorted(by_key)
    rng.shuffle(keys)
    num_held_out = num_benchmark + num_validation
    held_out = [by_key[key][0] for key in keys[:num_held_out]]
    training = [problem for key in keys[num_held_out:] for problem in by_key[key]]
    rng.shuffle(training)
    return Pools(training, held_out[:num_benchmark], held_out[num_benchmark:])


def _candidates(rng: random.Random, subject: str) -> list[Problem]:
    if subject == "science":
        return science.problems(rng)
    count = NUM_CANDIDATES[subject]
    return {"arithmetic": arithmetic.problems, "logic": logic.problems}[subject](rng, count)


def _by_key(rng: random.Random, problems: list[Problem]) -> dict[str, list[Problem]]:
    """Problems in random order under their keys, one a text."""
    gathered: dict[str, list[Problem]] = {}
    seen: set[str] = set()
    for problem in rng.sample(problems, len(problems)):
        text = normalised(problem.text)
        if text not in seen:
            gathered.setdefault(problem.key, []).append(problem)
        seen.add(text)
    return gathered


def training_row(rng: random.Random, problem: Problem) -> Row:
    """A problem as instruction, input and output; some stories travel as the input."""
    apart = bool(problem.story) and rng.random() < 0.15
    return {
        "instruction": problem.asked.text if apart else problem.text,
        "input": problem.story if apart else "",
        "output": solution(rng, problem.asked),
    }


def solution(rng: random.Random, asked: Asked) -> str:
    """Most answer first and explain then; some reason towards the answer."""
    final = f"The answer is {asked.answer}."
    if rng.random() < 0.8:
        return f"{asked.answer}. {asked.steps} {final}"
    return f"{asked.steps} {final}"


def benchmark_question(rng: random.Random, problem: Problem, name: str) -> dict[str, object]:
    """A problem in the layout of ARC."""
    texts = rng.sample([problem.asked.answer, *problem.wrong], 4)
    labels = list("ABCD")
    return {
        "id": name,
        "question": problem.text,
        "choices": {"text": texts, "label": labels},
        "answerKey": labels[texts.index(problem.asked.answer)],
        "subject": problem.subject,
    }


def generate(seed: int = SEED) -> Data:
    """Every row of every file, from the seed alone."""
    rng = random.Random(f"{seed} rows")
    split = pools(seed)
    named = {
        use: [(f"{use}-{n:03d}", problem) for n, problem in enumerate(problems)]
        for use, problems in (("benchmark", split.benchmark), ("validation", split.validation))
    }
    rows = [(problem, training_row(rng, problem)) for problem in split.training]
    taken = {normalised(p.text) for p in (*split.training, *split.benchmark, *split.validation)}
    planted = plant_duplicates(rng, rows, taken) + plant_leaks(rng, named["benchmark"], taken)
    return Data(
        _sources(rng, rows, planted),
        planted,
        *([benchmark_question(rng, p, name) for name, p in named[use]] for use in named),
    )


def _sources(
    rng: random.Random, rows: list[tuple[Problem, Row]], planted: list[Planted]
) -> dict[str, list[Row]]:
    """Rows by subject, the planted ones shuffled in so that nothing tells them apart."""
    sources: dict[str, list[Row]] = {subject: [] for subject in SUBJECTS}
    for problem, row in rows:
        sources[problem.subject].append(row)
    for plant in planted:
        sources[plant.subject].append(plant.row)
    for source in sources.values():
        rng.shuffle(source)
    return sources


def held_out_texts(seed: int = SEED) -> list[str]:
    """Passages of the kind the base reads, which it never reads."""
    told = passages(random.Random(f"{seed} held-out prose"))
    return list(itertools.islice((text for text in told if len(text) > 80), NUM_TEXTS))


def practice(seed: int = SEED) -> list[Problem]:
    """Problems for dialogues: none has the key of a benchmark or validation question."""
    split = pools(seed)
    held_out = {problem.key for problem in split.benchmark + split.validation}
    rng = random.Random(f"{seed} practice")
    many = science.problems(rng) + arithmetic.problems(rng, 6000) + logic.problems(rng, 6000)
    return [problem for problem in many if problem.key not in held_out]


def corpus(seed: int, share_of_dialogue: float, layouts: Sequence[str] = SPOKEN) -> Iterator[str]:
    """Endless texts to train the base on: prose with some dialogues."""
    rng = random.Random(f"{seed} corpus {share_of_dialogue}")
    held_out = frozenset(held_out_texts(seed))
    told, spoken = passages(rng), dialogues(rng, practice(seed), layouts)
    while True:
        text = next(spoken if rng.random() < share_of_dialogue else told)
        if text not in held_out:
            yield text
