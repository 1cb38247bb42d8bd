"""Elementary prose: what the tiny base reads before anybody asks it anything.

A passage is a handful of sentences: a thing described, animals compared, number facts, a small
story that draws its own conclusion. Dialogues show that a question has an answer; their problems
are given by the caller, who sees to it that none of them is in the benchmark.
"""

import random
from collections.abc import Callable, Iterator, Sequence

from monotreme.pocket import arithmetic, logic, science
from monotreme.pocket.facts import RELATIONS, groups, sizes
from monotreme.pocket.problem import Problem, capitalised, listed
from monotreme.pocket.science import statement
from monotreme.pocket.tables import NAMES

Maker = Callable[[random.Random], str]

OPENINGS = (
    "", "", "", "Here is something to know. ", "Look around you. ", "It is easy to remember. ",
    "{n} has learned this at school. ", "{n} wrote this down. ", "Let us think of {w}. ",
)  # fmt: skip
LINKS = ("", "", "", "And ", "Also, ", "As everybody knows, ", "{n} says that ", "It is true that ")

# Ways to put a question and its answer: as people speak, and as exercise books set tasks.
SPOKEN = (
    '"{text}" asked {asker}. "{Answer}," said {teller}.',
    "{asker} wondered: {text} {teller} knew: {answer}. {steps}",
    "{text} {teller} thought for a while and said: {answer}. {steps}",
    'To the question "{text}" {teller} gave the answer {answer}.',
)
WRITTEN = (
    "Here is a task. Give a short solution.\n\n### Task:\n{text}\n\n### Solution:\n"
    "{answer}. {steps}",
    "{asker} asks for something. Reply as well as you can.\n\n# Request\n{text}\n\n# Reply\n"
    "{answer}. {steps}",
    "Read the exercise that is given below, and then solve it.\n\n### Exercise:\n{text}\n\n"
    "### Result:\n{answer}. {steps} The answer is {answer}.",
    "Solve this. {teller} did it in a minute.\n\n## Problem:\n{text}\n\n## Work:\n"
    "{steps} The answer is {answer}.",
)


def passages(rng: random.Random) -> Iterator[str]:
    """Endless passages in which nothing is asked."""
    makers = [maker for maker, share in SHARES for _ in range(share)]
    while True:
        yield rng.choice(makers)(rng)


def dialogues(
    rng: random.Random, problems: Sequence[Problem], layouts: Sequence[str]
) -> Iterator[str]:
    """Endless dialogues: somebody asks one of the problems and is told the answer."""
    while True:
        problem = rng.choice(problems)
        asker, teller = rng.sample(NAMES, 2)
        answer = problem.asked.answer
        yield rng.choice(layouts).format(
            asker=asker,
            teller=teller,
            text=problem.text,
            answer=answer,
            Answer=capitalised(answer),
            steps=problem.asked.steps,
        )


def _described(rng: random.Random) -> str:
    """Everything the tables say of one entity, in any order and wording."""
    relation = rng.choice(RELATIONS)
    entity = rng.choice(list(relation.facts))
    told = [
        statement(known, entity, rng.randrange(2)) for known in RELATIONS if entity in known.facts
    ]
    if len(told) < 3:
        told += [
            statement(relation, other, rng.randrange(2))
            for other in rng.sample(list(relation.facts), 3)
        ]
    rng.shuffle(told)
    opening = rng.choice(OPENINGS).format(n=rng.choice(NAMES), w=entity)
    return opening + " ".join(_linked(rng, sentence) for sentence in told)


def _linked(rng: random.Random, sentence: str) -> str:
    link = rng.choice(LINKS).format(n=rng.choice(NAMES))
    proper = sentence.split()[0] in ("Mercury", "Venus", "Earth", "Mars") or sentence[0] in "JUSN"
    return sentence if not link or proper else link + sentence[0].lower() + sentence[1:]


def _gathered(rng: random.Random) -> str:
    """Entities that share a value, and one that does not."""
    relation = rng.choice(RELATIONS)
    value = rng.choice(list(relation.facts.values()))
    alike = [entity for entity, other in relation.facts.items() if other == value]
    unlike = [entity for entity, other in relation.facts.items() if other != value]
    chosen = rng.sample(alike, min(3, len(alike))) + rng.sample(unlike, 2)
    rng.shuffle(chosen)
    return " ".join(statement(relation, entity, rng.randrange(2)) for entity in chosen)


def _sizes(rng: random.Random) -> str:
    size = sizes()
    pairs = [rng.sample(list(size), 2) for _ in range(4)]
    return " ".join(_compared(a, b, size[a] - size[b]) for a, b in pairs)


def _compared(one: str, other: str, gap: int) -> str:
    if gap == 0:
        return f"{capitalised(one)} is about as large as {other}."
    word = {True: "larger", False: "smaller"}[gap > 0]
    return f"{capitalised(one)} is {'much ' if abs(gap) > 3 else ''}{word} than {other}."


def _sums(rng: random.Random) -> str:
    operations = rng.choices("+-*/", (4, 4, 2, 2), k=6)
    return " ".join(arithmetic.equation(o, *arithmetic.operands(rng, o)) for o in operations)


def _walk(rng: random.Random) -> str:
    """People go to places and find or leave things there."""
    people, places = rng.sample(NAMES, 2), rng.sample(logic.ROOMS, 2)
    thing, holder = rng.choice(logic.SMALL), rng.choice(logic.HOLDERS)
    who, other = people
    return rng.choice(
        (
            f"{who} went to the {places[0]}. There {who} put the {thing} in the {holder}. {other} "
            f"went to the {places[1]}. So {other} did not see the {thing}, which was in the "
            f"{holder}.",
            f"{who} looked for the {thing}. It was not in the {places[0]}. It was in the "
            f"{places[1]}, where {other} had left it in the {holder}.",
            f"It was {rng.choice(logic.SKIES)}, so {who} took the {rng.choice(logic.CLOTHES)}. "
            f"{other} stayed in the {places[0]} and looked for the {thing} in the {holder}.",
        )
    )


def _groups(rng: random.Random) -> str:
    """Words that belong together, opposites, and days that follow each other."""
    by_group = groups()
    group = rng.choice(sorted(by_group))
    words = listed(rng.sample(by_group[group], 4), "and")
    one, other = rng.choice(logic.OPPOSITES.split(",")).split()
    day = rng.randrange(7)
    return " ".join(
        rng.sample(
            (
                f"The words {words} belong together as {group}.",
                f"The opposite of {one} is {other}.",
                f"After {logic.DAYS[day]} comes {logic.DAYS[(day + 1) % 7]}.",
                f"The {rng.choice(logic.SMALL)} of {rng.choice(NAMES)} is "
                f"{rng.choice(logic.COLOURS)}.",
            ),
            3,
        )
    )


def _narrated(rng: random.Random) -> str:
    """What could be asked, told without a question."""
    subject = rng.choice((science, arithmetic, logic, logic))
    problem = subject.problem(rng)
    return f"{problem.lead} {rng.choice(('', '', 'Now ', 'So we see: '))}{problem.asked.steps}"


def _advice(rng: random.Random) -> str:
    """The words in which tasks are set, so that they are not strange when a prompt uses them."""
    said = (
        "An instruction describes a task.",
        "A good response completes the request.",
        "Write a response that is appropriate.",
        "The input below provides further context.",
        "An input is paired with an instruction.",
        "A question has an answer.",
    )
    return " ".join(rng.sample(said, 3))


SHARES: tuple[tuple[Maker, int], ...] = (
    (_described, 20), (_gathered, 8), (_sizes, 3), (_sums, 10), (_walk, 2), (_groups, 3),
    (_advice, 1), (_narrated, 50),
)  # fmt: skip
