"""Elementary logic: order, places, elimination, rules, invented kinds, odd ones out, series."""

import random
from collections.abc import Callable

from monotreme.pocket.facts import groups
from monotreme.pocket.problem import Asked, Problem, listed, others
from monotreme.pocket.tables import NAMES, words

QUALITIES = {
    "tall": ("taller", "shorter", "tallest", "shortest"),
    "old": ("older", "younger", "oldest", "youngest"),
    "fast": ("faster", "slower", "fastest", "slowest"),
    "strong": ("stronger", "weaker", "strongest", "weakest"),
    "rich": ("richer", "poorer", "richest", "poorest"),
    "loud": ("louder", "quieter", "loudest", "quietest"),
}
ROOMS = words("kitchen garden garage cellar attic library shop park school station barn office")
HOLDERS = words("box bag drawer basket jar tin chest pocket cupboard bucket case sack")
SMALL = words("key coin ring ball pen letter watch button ticket stamp map spoon")
INVENTED = words("wug blip dax mip zorb fep tove rith snark glim plon quib yarb vool nerk jub")
COLOURS = words("red blue green yellow white black brown purple orange pink grey golden")
SKIES = words("raining snowing sunny windy foggy stormy cloudy freezing")
CLOTHES = words("boots hat scarf coat gloves sandals shirt jacket cape socks shorts belt")
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
OPPOSITES = (
    "hot cold,big small,up down,day night,wet dry,full empty,hard soft,old new,open shut,"
    "early late,loud quiet,clean dirty,heavy light,happy sad,near far,rich poor,thick thin,"
    "strong weak,fast slow,young old,sharp blunt,deep shallow,wide narrow,long short,brave timid,"
    "sweet bitter,rough smooth,sick healthy,first last,left right,true false,inside outside"
)


def problems(rng: random.Random, count: int) -> list[Problem]:
    """The families in turn, so that each has its share."""
    return [FAMILIES[n % len(FAMILIES)](rng) for n in range(count)]


def problem(rng: random.Random) -> Problem:
    """Any one problem."""
    return rng.choice(FAMILIES)(rng)


def _order(rng: random.Random) -> Problem:
    """Three people in order, told by two comparisons in either direction."""
    people = rng.sample(NAMES, 4)
    first, middle, last, stranger = people
    quality = rng.choice(sorted(QUALITIES))
    more, less, most, least = QUALITIES[quality]
    told = [_told(rng, more, less, first, middle), _told(rng, more, less, middle, last)]
    rng.shuffle(told)
    top, bottom = (first, most), (last, least)
    (answer, superlative), (counterpart, opposite) = rng.sample([top, bottom], 2)
    return Problem(
        "logic",
        f"order/{quality}/{'/'.join(people[:3])}",
        Asked(f"Who is the {superlative}?", answer, f"{answer} is the {superlative}."),
        f"Name the {superlative} of the three, knowing this: {told[1]} {told[0]}",
        others(rng, (first, middle, last, stranger), answer),
        Asked(
            f"{' '.join(told)} Who is the {opposite}?",
            counterpart,
            f"{counterpart} is the {opposite}.",
        ),
        *[" ".join(told)] * 2,
    )


def _told(rng: random.Random, more: str, less: str, high: str, low: str) -> str:
    said = (f"{high} is {more} than {low}.", f"{low} is {less} than {high}.")
    return rng.choice(said)


def _whereabouts(rng: random.Random) -> Problem:
    """Three people go to three places; one is asked for."""
    people, places = rng.sample(NAMES, 3), rng.sample(ROOMS, 4)
    verbs = rng.sample(("went to", "walked to", "ran to", "is in", "sits in"), 3)
    told = [
        f"{p} {verb} the {place}." for p, verb, place in zip(people, verbs, places, strict=False)
    ]
    said = [f"{p} is in the {place}." for p, place in zip(people, places, strict=False)]
    who, other = rng.sample(range(3), 2)
    return Problem(
        "logic",
        f"where/{people}/{places}",
        Asked(f"Where is {people[who]}?", f"the {places[who]}", said[who]),
        f"Say in which place {people[who]} is. {' '.join(reversed(told))}",
        tuple(f"the {place}" for place in places if place != places[who]),
        Asked(f"{' '.join(told)} Where is {people[other]}?", f"the {places[other]}", said[other]),
        *[" ".join(told)] * 2,
    )


def _elimination(rng: random.Random) -> Problem:
    """A thing is in one of three holders, and not in two of them."""
    thing, owner = rng.choice(SMALL), rng.choice(NAMES)
    holders = rng.sample(HOLDERS, 4)
    options, stranger = holders[:3], holders[3]
    where, look_alike = rng.sample(options, 2)

    def told(answer: str) -> tuple[str, str]:
        not_in = [holder for holder in options if holder != answer]
        return (
            f"The {thing} of {owner} is in the {listed(options)}.",
            f"It is not in the {not_in[0]} and not in the {not_in[1]}.",
        )

    ask, steps = f"Where is the {thing}?", f"The {thing} is in the {{}}."
    hint, denial = told(where)
    return Problem(
        "logic",
        f"left/{thing}/{owner}/{holders}",
        Asked(ask, f"the {where}", steps.format(where)),
        f"{denial} Where, then, is the {thing} that {owner} put in the {listed(options)}?",
        tuple(f"the {holder}" for holder in (*options, stranger) if holder != where),
        Asked(f"{' '.join(told(look_alike))} {ask}", f"the {look_alike}", steps.format(look_alike)),
        *[f"{hint} {denial}"] * 2,
    )


def _rule(rng: random.Random) -> Problem:
    """Three rules, one of which applies today."""
    who, skies, clothes = rng.choice(NAMES), rng.sample(SKIES, 3), rng.sample(CLOTHES, 4)
    rules = [f"If it is {s}, {who} takes the {c}." for s, c in zip(skies, clothes, strict=False)]
    today, other = rng.sample(range(3), 2)
    ask = f"What does {who} take?"
    return Problem(
        "logic",
        f"rule/{who}/{skies}/{clothes}",
        Asked(ask, f"the {clothes[today]}", f"{who} takes the {clothes[today]}."),
        f"Today it is {skies[today]}. Which thing will {who} choose? {' '.join(rules)}",
        tuple(f"the {c}" for c in clothes if c != clothes[today]),
        Asked(
            f"{' '.join(rules)} It is {skies[other]}. {ask}",
            f"the {clothes[other]}",
            f"{who} takes the {clothes[other]}.",
        ),
        *[f"{' '.join(rules)} It is {skies[today]}."] * 2,
    )


def _syllogism(rng: random.Random) -> Problem:
    """Invented kinds inside kinds, whose colours must be passed on."""
    kinds, colours = rng.sample(INVENTED, 4), rng.sample(COLOURS, 4)
    chains = [(kinds[0], kinds[1], colours[0]), (kinds[2], kinds[3], colours[1])]
    premises = [f"All {a}s are {b}s." for a, b, _ in chains]
    premises += [f"All {b}s are {colour}." for _, b, colour in chains]
    rng.shuffle(premises)
    told = " ".join(premises)
    (small, middle, colour), (other, between, another) = rng.sample(chains, 2)
    return Problem(
        "logic",
        f"kind/{told}",
        Asked(
            f"What colour are {small}s?",
            colour,
            f"{small}s are {middle}s, so {small}s are {colour}.",
        ),
        f"Tell the colour of {small}s from this: {told}",
        tuple(c for c in colours if c != colour),
        Asked(
            f"{told} What colour are {other}s?",
            another,
            f"{other}s are {between}s, so {other}s are {another}.",
        ),
        *[told] * 2,
    )


def _odd_one_out(rng: random.Random) -> Problem:
    """Three words of one group and one of another."""
    by_group = groups()
    group, stranger, third = rng.sample(sorted(by_group), 3)
    alike = rng.sample(by_group[group], 3)
    odd, look_alike = rng.choice(by_group[stranger]), rng.choice(by_group[third])
    ask = rng.choice(("Which word does not belong: {}?", "Which is the odd one out: {}?"))
    place = rng.randrange(4)
    words, other = ([*alike[:place], word, *alike[place:]] for word in (odd, look_alike))
    return Problem(
        "logic",
        f"odd/{sorted(words)}",
        Asked(ask.format(listed(words)), odd, _stranger(odd, group)),
        f"Find the word that is of another kind than the rest of {listed(words[::-1], 'and')}.",
        tuple(alike),
        Asked(ask.format(listed(other)), look_alike, _stranger(look_alike, group)),
        f"Here are {listed(words, 'and')}.",
    )


def _stranger(odd: str, group: str) -> str:
    return f"{odd.capitalize()} is the stranger among the {group} words."


def _series(rng: random.Random) -> Problem:
    """The next number of an arithmetic series."""
    step, start = rng.choice((1, 2, 3, 4, 5, 10)), rng.randint(1, 30)
    shift = rng.randint(1, 9)
    numbers, other = ([begin + step * n for n in range(5)] for begin in (start, start + shift))
    near = [str(numbers[4] + gap) for gap in (-2, -1, 1, 2, 3)]
    return Problem(
        "logic",
        f"series/{start}/{step}",
        _series_asked(numbers, step),
        f"Continue the row {listed([str(n) for n in numbers[:4]], 'and')} by one number.",
        tuple(rng.sample(near, 3)),
        _series_asked(other, step),
        f"Count on: {', '.join(str(n) for n in numbers)}.",
    )


def _series_asked(numbers: list[int], step: int) -> Asked:
    shown = ", ".join(str(n) for n in numbers[:4])
    return Asked(
        f"What number comes next: {shown}?",
        str(numbers[4]),
        f"{numbers[3]} + {step} = {numbers[4]}.",
    )


def _analogy(rng: random.Random) -> Problem:
    """An opposite, shown by another pair of opposites."""
    pairs = [pair.split() for pair in OPPOSITES.split(",")]
    shown, asked, other = rng.sample(pairs, 3)
    return Problem(
        "logic",
        f"opposite/{shown[0]}/{asked[0]}",
        _analogy_asked(shown, asked),
        f"Complete the comparison: {shown[0]} and {shown[1]}, {asked[0]} and what?",
        others(rng, [pair[1] for pair in pairs], asked[1]),
        _analogy_asked(shown, other),
        f"The opposite of {shown[0]} is {shown[1]}.",
    )


def _analogy_asked(shown: list[str], asked: list[str]) -> Asked:
    text = f"{shown[0].capitalize()} is to {shown[1]} as {asked[0]} is to what?"
    return Asked(text, asked[1], f"The opposite of {asked[0]} is {asked[1]}.")


def _day(rng: random.Random) -> Problem:
    """A day counted from today."""
    today, ahead, other = rng.choice(DAYS), *rng.sample(range(1, 6), 2)
    who = rng.choice(NAMES)
    day = _day_after(today, ahead)
    return Problem(
        "logic",
        f"day/{who}/{today}/{ahead}",
        _day_asked(who, today, ahead),
        f"{who} comes {ahead} days after {today}. What day of the week is that?",
        others(rng, DAYS, day),
        _day_asked(who, today, other),
        f"It is {today}. {who} comes in {ahead} days.",
    )


def _day_after(today: str, ahead: int) -> str:
    return DAYS[(DAYS.index(today) + ahead) % 7]


def _day_asked(who: str, today: str, ahead: int) -> Asked:
    text = f"It is {today}. {who} comes in {ahead} days. On which day does {who} come?"
    day = _day_after(today, ahead)
    return Asked(text, day, f"{who} comes on {day}.")


FAMILIES: tuple[Callable[[random.Random], Problem], ...] = (
    _order, _whereabouts, _elimination, _rule, _syllogism, _odd_one_out, _order, _whereabouts,
    _elimination, _rule, _odd_one_out, _series, _analogy, _day,
)  # fmt: skip
