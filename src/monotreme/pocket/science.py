"""Elementary science: a fact asked forwards, a fact picked from four, and sizes compared."""

import random

from monotreme.pocket.facts import RELATIONS, Relation, sizes
from monotreme.pocket.problem import Asked, Problem, capitalised, listed, others

NUM_SIZES = 330
LARGEST = (
    "Which of these animals is the largest: {list}?",
    "Pick the biggest animal out of {list}.",
    "Of {list}, which one has the greatest body?",
)
SMALLEST = (
    "Which of these animals is the smallest: {list}?",
    "Pick the tiniest animal out of {list}.",
    "Of {list}, which one has the least body?",
)


def problems(rng: random.Random) -> list[Problem]:
    """Every fact of the world, forwards and picked from four, and some size comparisons."""
    found = []
    for relation in RELATIONS:
        for entity in relation.facts:
            found.append(_forwards(rng, relation, entity))
            found.append(_picked(rng, relation, entity))
    return found + [_compared(rng) for _ in range(NUM_SIZES)]


def problem(rng: random.Random) -> Problem:
    """Any one problem."""
    relation = rng.choice(RELATIONS)
    entity = rng.choice(list(relation.facts))
    return _picked(rng, relation, entity) if rng.random() < 0.7 else _compared(rng)


def statement(relation: Relation, entity: str, way: int = 0) -> str:
    """The fact as a sentence."""
    return capitalised(relation.statements[way].format(e=entity, v=relation.facts[entity])) + "."


def _forwards(rng: random.Random, relation: Relation, entity: str) -> Problem:
    answer = relation.facts[entity]
    wording, again = rng.sample(relation.questions, 2)
    unlike = [other for other in relation.facts if relation.facts[other] != answer]
    other = rng.choice(unlike)
    return Problem(
        "science",
        f"{relation.name}/{entity}",
        Asked(wording.format(e=entity), answer, statement(relation, entity)),
        again.format(e=entity),
        others(rng, list(relation.facts.values()), answer),
        Asked(wording.format(e=other), relation.facts[other], statement(relation, other)),
        f"Think of {entity}.",
    )


def _picked(rng: random.Random, relation: Relation, entity: str) -> Problem:
    value = relation.facts[entity]
    wrong = others(rng, [e for e in relation.facts if relation.facts[e] != value])
    options = _shuffled(rng, (entity, *wrong))
    reordered = listed(_shuffled(rng, options))
    text = relation.pick.format(v=value, list=listed(options))
    other = wrong[0]
    return Problem(
        "science",
        f"{relation.name}/{entity}",
        Asked(text, entity, statement(relation, entity)),
        f"Choose from {reordered}. {relation.pick.format(v=value, list='one')}".replace(
            ": one", ""
        ),
        wrong,
        Asked(
            relation.pick.format(v=relation.facts[other], list=listed(options)),
            other,
            statement(relation, other),
        ),
        f"Here are {listed(options, 'and')}.",
    )


def _compared(rng: random.Random) -> Problem:
    size = sizes()
    levels = rng.sample(range(1, 10), 4)
    options = [rng.choice([a for a in size if size[a] == level]) for level in levels]
    ranked = sorted(options, key=lambda animal: size[animal])
    largest, smallest = ranked[-1], ranked[0]
    up = rng.random() < 0.5
    wordings, opposite = (LARGEST, SMALLEST) if up else (SMALLEST, LARGEST)
    way = rng.randrange(3)
    answer, counterpart = (largest, smallest) if up else (smallest, largest)
    return Problem(
        "science",
        "size/" + "/".join(sorted(options)),
        Asked(wordings[way].format(list=listed(options)), answer, _size_steps(answer, up)),
        wordings[(way + 1) % 3].format(list=listed(_shuffled(rng, options))),
        tuple(option for option in options if option != answer),
        Asked(
            opposite[way].format(list=listed(options)),
            counterpart,
            _size_steps(counterpart, not up),
        ),
        f"Here are {listed(options, 'and')}.",
    )


def _size_steps(animal: str, up: bool) -> str:
    return f"{capitalised(animal)} is the {'largest' if up else 'smallest'}."


def _shuffled(rng: random.Random, items: list[str] | tuple[str, ...]) -> list[str]:
    return rng.sample(list(items), len(items))
