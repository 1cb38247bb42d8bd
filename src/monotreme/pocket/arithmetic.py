"""Elementary arithmetic: stories with two numbers, plain sums, and numbers compared.

The step of every story and sum is its equation ("12 + 5 = 17."), so that anybody can work the
answer out again.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from monotreme.pocket.problem import Asked, Problem, listed
from monotreme.pocket.tables import NAMES, words

THINGS = words("apples marbles shells stamps cards pens buttons stones eggs beads nuts cakes")


@dataclass(frozen=True)
class Story:
    """A question about two numbers {a} and {b}, the same in other words, and the operation."""

    operation: str
    text: str
    reworded: str


def _stories(operation: str, lines: str) -> list[Story]:
    """Stories whose texts and rewordings take turns, a line each."""
    texts = lines.strip().split("\n")
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return [Story(operation, text, reworded) for text, reworded in pairs]


STORIES = [
    *_stories(
        "+",
        """
{n} has {a} {t}. {m} gives {n} {b} more. How many {t} does {n} have now?
{n} owns {a} {t} and gets {b} others from {m}. Count all the {t} of {n}.
There are {a} {t} in a box and {b} on a table. How many {t} are there altogether?
A box holds {a} {t}, a table {b}. What is the total number of {t}?
{n} read {a} pages on Monday and {b} pages on Tuesday. How many pages is that?
On Monday {n} finished {a} pages and on Tuesday {b}. Find the number of pages read.
A bus carries {a} people. At the stop {b} more get on. How many people ride now?
{b} people get on a bus with {a} people in it. How full is the bus then?
{n} picks {a} plums and {m} picks {b}. How many plums do they pick together?
Together, how many plums do {n} and {m} pick, if {n} picks {a} and {m} {b}?
A rope of {a} metres is tied to a rope of {b} metres. How long is the new rope?
What length do you get by tying {a} metres of rope to {b} metres of rope?
{n} is {a} years old. How old will {n} be in {b} years?
In {b} years, what age will {n} have, who is {a} today?
A shirt costs {a} coins and a hat {b} coins. What do both cost?
How much do you pay for a hat at {b} coins and a shirt at {a} coins?
A farmer has {a} sheep and {b} goats. How many animals is that?
How many animals has a farmer with {b} goats and {a} sheep?
""",
    ),
    *_stories(
        "-",
        """
{n} had {a} {t} and lost {b} of them. How many {t} are left?
Of {a} {t}, {n} lost {b}. What number of {t} does {n} still have?
{a} birds sat on a roof and {b} flew away. How many birds stayed?
How many of {a} birds stayed on the roof when {b} left it?
{n} has {a} coins and spends {b} on a toy. How many coins remain?
A toy costs {n} {b} of {a} coins. What is left in the purse?
A baker made {a} loaves and sold {b}. How many loaves were not sold?
{b} of the {a} loaves of a baker were sold. Count the others.
{n} has {a} {t} and {m} has {b}. How many more has {n} than {m}?
By how many {t} does {n}, with {a}, beat {m}, with {b}?
A book has {a} pages and {n} has read {b}. How many pages are still to read?
How many pages of a book of {a} pages remain for {n} after page {b}?
Of {a} children in a class {b} are ill at home. How many came to school?
{b} of {a} children stayed at home ill. How many sit in class?
A plank of {a} metres loses {b} metres to the saw. How long is it now?
How long is a plank of {a} metres after {b} metres are sawn off?
A tank held {a} litres of water. {b} litres leaked out. How many litres are in it?
How much water is in a tank that held {a} litres and lost {b}?
""",
    ),
    *_stories(
        "*",
        """
There are {a} boxes with {b} {t} in each. How many {t} is that?
How many {t} fill {a} boxes if each box takes {b}?
{n} walks {a} miles a day for {b} days. How many miles is that?
For {b} days {n} walks {a} miles each day. Find the whole distance in miles.
One ticket costs {a} coins. What do {b} tickets cost?
How many coins do you pay for {b} tickets at {a} coins each?
A garden has {a} rows of {b} trees. How many trees grow there?
How many trees stand in {a} rows with {b} trees in every row?
{a} tables have {b} chairs each. How many chairs are there?
How many chairs do you need for {a} tables with {b} places each?
{n} earns {a} coins an hour and works {b} hours. What is the pay?
What does {n} earn in {b} hours at {a} coins an hour?
A hen lays {a} eggs a week. How many eggs does she lay in {b} weeks?
In {b} weeks, how many eggs come from a hen that lays {a} a week?
""",
    ),
    *_stories(
        "/",
        """
{n} shares {a} {t} fairly among {b} friends. How many does each get?
{b} friends of {n} get {a} {t} in equal parts. What is one part?
{a} {t} go into bags of {b}. How many bags are filled?
How many bags do you fill with {a} {t} at {b} in a bag?
A rope of {a} metres is cut into {b} equal pieces. How long is each piece?
How long is one of {b} equal pieces of a rope of {a} metres?
{b} tickets cost {a} coins. What does one ticket cost?
What is the price of one ticket when {b} of them cost {a} coins?
{a} pupils stand in {b} equal rows. How many pupils are in one row?
How many pupils are in each of {b} equal rows made by {a} pupils?
""",
    ),
]

SUMS = [
    *_stories(
        "+",
        """
What is {a} + {b}?
Add {a} and {b}.
Find the sum of {a} and {b}.
Compute {a} + {b}.
""",
    ),
    *_stories(
        "-",
        """
What is {a} - {b}?
Take {b} away from {a}.
Subtract {b} from {a}.
Compute {a} - {b}.
""",
    ),
    *_stories(
        "*",
        """
What is {a} * {b}?
Multiply {a} by {b}.
Work out {a} times {b}.
Compute {a} * {b}.
""",
    ),
    *_stories(
        "/",
        """
What is {a} / {b} in whole numbers?
Divide {a} by {b}.
""",
    ),
]

LARGEST = ("Which number is the largest: {list}?", "Name the greatest of the numbers {list}.")
SMALLEST = ("Which number is the smallest: {list}?", "Name the least of the numbers {list}.")


def problems(rng: random.Random, count: int) -> list[Problem]:
    """Mostly stories, some plain sums, some comparisons."""
    return [MAKERS[n % len(MAKERS)](rng) for n in range(count)]


def problem(rng: random.Random) -> Problem:
    """Any one problem."""
    return rng.choice(MAKERS)(rng)


def equation(operation: str, a: int, b: int) -> str:
    """The worked step, as training rows and the base's prose write it."""
    return f"{a} {operation} {b} = {solved(operation, a, b)}."


def solved(operation: str, a: int, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operation]


def operands(rng: random.Random, operation: str) -> tuple[int, int]:
    """Two numbers small enough for mental arithmetic; a division has no remainder."""
    if operation in "*/":
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        return (a, b) if operation == "*" else (a * b, b)
    b = rng.randint(2, 12)
    return (rng.randint(2, 30), b) if operation == "+" else (b + rng.randint(1, 30), b)


def _story(rng: random.Random) -> Problem:
    words = dict(zip("nm", rng.sample(NAMES, 2), strict=True)) | {"t": rng.choice(THINGS)}
    return _two_numbers(rng, STORIES, words)


def _sum(rng: random.Random) -> Problem:
    return _two_numbers(rng, SUMS, {})


def _two_numbers(rng: random.Random, stories: list[Story], words: dict[str, str]) -> Problem:
    story = rng.choice(stories)
    a, b = operands(rng, story.operation)
    asked = _asked(story, a, b, words)
    other = asked
    while other.answer == asked.answer:
        other = _asked(story, *operands(rng, story.operation), words)
    return Problem(
        "arithmetic",
        f"{stories.index(story)}{story.operation}/{a}/{b}",
        asked,
        story.reworded.format(a=a, b=b, **words),
        _wrong_numbers(rng, a, b, int(asked.answer)),
        other,
        _before_the_question(asked.text),
    )


def _asked(story: Story, a: int, b: int, words: dict[str, str]) -> Asked:
    answer = str(solved(story.operation, a, b))
    return Asked(story.text.format(a=a, b=b, **words), answer, equation(story.operation, a, b))


def _before_the_question(text: str) -> str:
    """A story without its last sentence, which asks."""
    told, _, _ = text.rpartition(". ")
    return f"{told}." if told else "Let us reckon."


def _wrong_numbers(rng: random.Random, a: int, b: int, answer: int) -> tuple[str, ...]:
    """What other operations give, and near misses: the answers of somebody who guesses well."""
    near = {answer + step for step in (-10, -2, -1, 1, 2, 10)}
    likely = {a + b, a - b, a * b} | near
    pool = sorted(n for n in likely if 0 < n < 101 and n not in (answer, a, b))
    return tuple(str(n) for n in rng.sample(pool, 3))


def _compared(rng: random.Random) -> Problem:
    numbers = rng.sample(range(2, 100), 4)
    up = rng.random() < 0.5
    wordings, opposite = (LARGEST, SMALLEST) if up else (SMALLEST, LARGEST)
    way = rng.randrange(2)
    written = listed([str(n) for n in numbers])
    mixed = listed([str(n) for n in rng.sample(numbers, 4)])
    answer, counterpart = (max(numbers), min(numbers)) if up else (min(numbers), max(numbers))
    return Problem(
        "arithmetic",
        f"{up}/{sorted(numbers)}",
        Asked(wordings[way].format(list=written), str(answer), _extreme(answer, up)),
        wordings[1 - way].format(list=mixed),
        tuple(str(n) for n in numbers if n != answer),
        Asked(opposite[way].format(list=written), str(counterpart), _extreme(counterpart, not up)),
        f"Here are {listed([str(n) for n in numbers], 'and')}.",
    )


def _extreme(number: int, up: bool) -> str:
    return f"{number} is the {'largest' if up else 'smallest'}."


MAKERS: tuple[Callable[[random.Random], Problem], ...] = (_story, _story, _story, _sum, _compared)
