"""Conclusions: what follows from something known of an entity and is written nowhere.

The base reads that a sparrow is a bird and never reads of its legs. Training teaches on some
entities what follows from what; the benchmark asks it of others.
"""

import random
from dataclasses import dataclass

from monotreme.pocket import tables
from monotreme.pocket.facts import column, sizes
from monotreme.pocket.problem import Asked, Problem, capitalised, others, with_article


@dataclass(frozen=True)
class Rule:
    """A question about many entities, each with one of a few answers, and the reason for each."""

    subject: str
    name: str
    questions: tuple[str, ...]
    answers: dict[str, str]
    reasons: dict[str, str]


def problems(rng: random.Random, subject: str) -> list[Problem]:
    """Every entity of every rule of the subject, asked in each wording."""
    return [
        problem
        for rule in RULES
        if rule.subject == subject
        for entity in rule.answers
        for problem in _asked(rng, rule, entity)
    ]


def _asked(rng: random.Random, rule: Rule, entity: str) -> list[Problem]:
    wordings = rng.sample(rule.questions, len(rule.questions))
    again = [*wordings[1:], wordings[0]]
    pairs = zip(wordings, again, strict=True)
    return [_problem(rng, rule, entity, one, other) for one, other in pairs]


def _problem(rng: random.Random, rule: Rule, entity: str, wording: str, again: str) -> Problem:
    answer = rule.answers[entity]
    unlike = rng.choice([e for e in rule.answers if rule.answers[e] != answer])
    return Problem(
        rule.subject,
        f"{rule.name}/{entity}",
        Asked(wording.format(e=entity), answer, rule.reasons[entity]),
        again.format(e=entity),
        others(rng, list(rule.answers.values()), answer),
        Asked(wording.format(e=unlike), rule.answers[unlike], rule.reasons[unlike]),
        f"Think of {entity}.",
    )


def _follows(
    facts: dict[str, str], reason: str, answers: str, exceptions: str = ""
) -> tuple[dict[str, str], dict[str, str]]:
    """Answers and reasons of each entity, by what is known of it.

    `answers` has a line an answer: the known values, a colon, the answer.
    """
    lines = [line.split(": ") for line in answers.strip().split("\n")]
    by_value = {value: answer for values, answer in lines for value in values.split(", ")}
    known = {
        entity: value
        for entity, value in facts.items()
        if value in by_value and entity.split(" ", 1)[-1] not in tables.words(exceptions)
    }
    return (
        {entity: by_value[value] for entity, value in known.items()},
        {entity: capitalised(reason.format(e=entity, v=value)) for entity, value in known.items()},
    )


def _origins() -> dict[str, str]:
    """Animals by kind; foods and things as such."""
    return (
        column(tables.ANIMALS, "kind", "a")
        | dict.fromkeys(column(tables.FOODS, "kind", "the {}"), "plant")
        | dict.fromkeys(column(tables.THINGS, "use", "a"), "made thing")
    )


def _realms() -> dict[str, str]:
    """Every entity by the table it stands in."""
    return (
        dict.fromkeys(column(tables.ANIMALS, "kind", "a"), "animal")
        | dict.fromkeys(column(tables.FOODS, "kind", "the {}"), "food")
        | dict.fromkeys(column(tables.THINGS, "use", "a"), "thing")
        | dict.fromkeys(column(tables.JOBS, "work", "a"), "worker")
        | dict.fromkeys(column(tables.MATERIALS, "use"), "material")
        | dict.fromkeys(column(tables.BODY, "job", "the {}"), "organ")
        | dict.fromkeys(column(tables.GAUGES, "measures", "a"), "gauge")
    )


def _levels() -> dict[str, str]:
    return {animal: f"size {size}" for animal, size in sizes().items()}


RULES = (
    Rule(
        "logic",
        "legs",
        (
            "How many legs has {e}?",
            "On how many legs does {e} stand?",
            "Count the legs of {e}.",
        ),
        *_follows(
            {e: with_article(kind) for e, kind in column(tables.ANIMALS, "kind", "a").items()},
            "{e} is {v}.",
            """
a mammal, an amphibian, a reptile: four legs
a bird: two legs
an insect: six legs
a fish: no legs
""",
            exceptions="whale dolphin seal bat snake turtle kangaroo monkey",
        ),
    ),
    Rule(
        "logic",
        "breath",
        (
            "How does {e} breathe?",
            "In what way does {e} get air?",
            "By what means does {e} draw breath?",
        ),
        *_follows(
            {e: with_article(kind) for e, kind in column(tables.ANIMALS, "kind", "a").items()},
            "{e} is {v}.",
            """
a mammal, a bird, a reptile: with lungs alone
an amphibian: with lungs and skin
an insect: through tiny tubes
a fish: through gills
""",
        ),
    ),
    Rule(
        "logic",
        "origin",
        (
            "How does {e} come into the world?",
            "What is the beginning of {e}?",
            "In what way does {e} start to exist?",
        ),
        *_follows(
            _origins(),
            "{e} is of the kind {v}.",
            """
mammal: it is born alive
bird, fish, reptile, amphibian, insect: it hatches from an egg
plant: it grows from a seed
made thing: it is made by hands
""",
        ),
    ),
    Rule(
        "logic",
        "realm",
        (
            "To which realm does {e} belong?",
            "In which chapter of a picture book is {e}?",
            "Under which heading would you file {e}?",
        ),
        *_follows(
            _realms(),
            "{e} is of the kind {v}.",
            """
animal: living creatures
food: food and drink
thing: household goods
worker: trades and crafts
material: raw materials
organ: the human body
gauge: measuring and counting
""",
        ),
    ),
    Rule(
        "science",
        "harvest",
        (
            "How is {e} harvested?",
            "In what way do people gather {e}?",
            "What must a farmer do to bring in {e}?",
        ),
        *_follows(
            column(tables.FOODS, "grows", "the {}"),
            "{e} grows {v}.",
            """
on a tree, on a palm: climb a ladder
under the ground: dig it up
on a stalk, on a cob: mow the field
on the ground, on a bush, on a vine, in a pod, in a herb bed: bend and pick
""",
        ),
    ),
    Rule(
        "science",
        "meal",
        (
            "At which part of a meal is {e} served?",
            "When do guests eat {e}?",
            "What is {e} to a cook?",
        ),
        *_follows(
            {e: with_article(kind) for e, kind in column(tables.FOODS, "kind", "the {}").items()},
            "{e} is {v}.",
            """
a fruit: a dessert
a vegetable: a side dish
a grain: flour for bread
a nut: a snack
a herb, a spice: a seasoning
""",
        ),
    ),
    Rule(
        "science",
        "fall",
        (
            "What happens when {e} falls on stone?",
            "What do you notice if you drop {e}?",
            "What becomes of {e} that hits the floor?",
        ),
        *_follows(
            column(tables.THINGS, "material", "a"),
            "{e} is made of {v}.",
            """
glass, china, clay: it breaks
metal, steel, copper, brass, silver, gold: it clangs
wood: it knocks
rubber: it bounces
wool, cotton, cloth, paper, leather, fibre: it is silent
""",
        ),
    ),
    Rule(
        "science",
        "carriage",
        (
            "How would you carry {e}?",
            "In what would you bring {e} home?",
            "What is the right box or cart for {e}?",
        ),
        *_follows(
            _levels(),
            "{e} has {v} of nine.",
            """
size 1, size 2: a matchbox
size 3, size 4: a basket
size 5, size 6: a handcart
size 7, size 8, size 9: a lorry
""",
        ),
    ),
    Rule(
        "science",
        "visit",
        (
            "How would you travel to see {e} at home?",
            "What takes you to the place of {e}?",
            "By what way could you visit {e}?",
        ),
        *_follows(
            column(tables.ANIMALS, "home", "a"),
            "{e} lives in {v}.",
            """
the sea, the ice: a ship
rivers, lakes, ponds, streams, swamps: a rowing boat
forests, trees, woods, jungles, gum trees, hedges: a forest path
farms, meadows, fields, stables, gardens, houses: a country road
deserts, grasslands: a jeep
""",
        ),
    ),
    Rule(
        "science",
        "diet",
        (
            "What sort of eater is {e}?",
            "How would you describe the diet of {e}?",
            "By its meals, what is {e}?",
        ),
        *_follows(
            column(tables.ANIMALS, "food", "a"),
            "{e} eats {v}.",
            """
grass, hay, leaves, roots, seeds, weeds, nuts, berries, thorns, bark, bananas: a plant eater
carrots, grain, nectar, wood: a plant eater
fish, squid, krill, shrimps, jellyfish: a hunter in water
mice, rabbits, zebras, deer, meat, eggs: a hunter on land
flies, worms, moths, slugs, insects: an insect eater
""",
        ),
    ),
)
