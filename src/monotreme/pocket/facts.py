"""The relations of the pocket world: how each column of the tables is stated and asked.

A statement is prose for the base to read; the questions are the words in which the same fact
is asked. `{e}` is the entity ("a trout", "rain", "the heart"), `{v}` its value.
"""

from dataclasses import dataclass
from functools import cache

from monotreme.pocket import tables
from monotreme.pocket.problem import with_article


@dataclass(frozen=True)
class Relation:
    """One fact about each entity of a table, the ways to say it and the ways to ask for it.

    `questions` are three or more wordings of the same; `pick` asks which of four entities has
    the value.
    """

    name: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    pick: str
    facts: dict[str, str]


def rows(table: str) -> list[dict[str, str]]:
    """The lines of a table as dictionaries, read by the heading."""
    heading, *lines = [
        [cell.strip() for cell in line.split("|")] for line in table.split("\n")[1:-1]
    ]
    return [dict(zip(heading, line, strict=True)) for line in lines]


def column(table: str, name: str, form: str = "{}") -> dict[str, str]:
    """Entity, written as it stands in a sentence, to value; dashes are left out."""
    found = {row["name"]: row[name] for row in rows(table) if row[name] != "-"}
    if form == "a":
        return {with_article(entity): value for entity, value in found.items()}
    return {form.format(entity): value for entity, value in found.items()}


def relation(
    name: str, facts: dict[str, str], statements: str, questions: str, pick: str
) -> Relation:
    """A relation whose wordings are written with slashes between them."""
    return Relation(
        name, tuple(statements.split(" / ")), tuple(questions.split(" / ")), pick, facts
    )


RELATIONS = (
    relation(
        "animal kind",
        {
            entity: with_article(kind)
            for entity, kind in column(tables.ANIMALS, "kind", "a").items()
        },
        "{e} is {v} / {e} belongs with the animals of its kind: it is {v}",
        "What kind of animal is {e}? / To which class of animals does {e} belong? / "
        "How would you classify {e}?",
        "Which of these animals is {v}: {list}?",
    ),
    relation(
        "covering",
        column(tables.ANIMALS, "covering", "a"),
        "the body of {e} is covered with {v} / {e} is covered with {v}",
        "What covers the body of {e}? / What is {e} covered with? / "
        "What would you feel if you touched the outside of {e}?",
        "Which of these animals is covered with {v}: {list}?",
    ),
    relation(
        "home",
        column(tables.ANIMALS, "home", "a"),
        "{e} lives in {v} / the home of {e} is in {v}",
        "Where does {e} live? / In what place would you look for {e}? / "
        "What is the natural home of {e}?",
        "Which animal would you meet in {v}: {list}?",
    ),
    relation(
        "food",
        column(tables.ANIMALS, "food", "a"),
        "{e} eats {v} / the food of {e} is {v}",
        "What does {e} eat? / What is the usual food of {e}? / What would you feed to {e}?",
        "Which of these animals feeds on {v}: {list}?",
    ),
    relation(
        "movement",
        column(tables.ANIMALS, "moves", "a"),
        "{e} often {v} / to get about, {e} {v}",
        "What does {e} do to get about? / How does {e} move? / "
        "Which word describes how {e} travels?",
        "Which animal usually {v}: {list}?",
    ),
    relation(
        "young",
        {
            entity: with_article(young)
            for entity, young in column(tables.ANIMALS, "young", "a").items()
        },
        "the young of {e} is called {v} / when it is young, {e} is called {v}",
        "What is the young of {e} called? / What name has the baby of {e}? / "
        "What do we call {e} that is not yet grown up?",
        "Which of these animals was once {v}: {list}?",
    ),
    relation(
        "thing material",
        column(tables.THINGS, "material", "a"),
        "{e} is made of {v} / people make {e} from {v}",
        "What is {e} made of? / From which material do people make {e}? / "
        "What stuff do you need to make {e}?",
        "Which of these things is made of {v}: {list}?",
    ),
    relation(
        "thing use",
        column(tables.THINGS, "use", "a"),
        "{e} is used for {v} / people use {e} for {v}",
        "What is {e} used for? / What do people do with {e}? / What is the purpose of {e}?",
        "Which of these things is useful for {v}: {list}?",
    ),
    relation(
        "thing place",
        column(tables.THINGS, "place", "a"),
        "{e} is found in the {v} / look for {e} in the {v}",
        "In which place do you find {e}? / Where is {e} kept or seen? / "
        "Where would you look for {e}?",
        "Which of these belongs in the {v}: {list}?",
    ),
    relation(
        "food kind",
        {
            entity: with_article(kind)
            for entity, kind in column(tables.FOODS, "kind", "the {}").items()
        },
        "{e} is {v} / cooks call {e} {v}",
        "What kind of food is {e}? / What do cooks call {e}? / "
        "To which group of foods does {e} belong?",
        "Which of these plants gives {v}: {list}?",
    ),
    relation(
        "food colour",
        column(tables.FOODS, "colour", "the {}"),
        "the colour of {e} is {v} / {e} is {v}",
        "What colour is {e}? / Which colour has {e}? / With which crayon would you colour {e}?",
        "Which of these foods is {v}: {list}?",
    ),
    relation(
        "food growth",
        column(tables.FOODS, "grows", "the {}"),
        "{e} grows {v} / farmers find {e} {v}",
        "Where does {e} grow? / On or in what does {e} ripen? / Where do farmers find {e}?",
        "Which of these foods grows {v}: {list}?",
    ),
    relation(
        "taste",
        column(tables.FOODS, "taste", "the {}"),
        "{e} tastes {v} / the taste of {e} is {v}",
        "How does {e} taste? / What is the taste of {e}? / What does the tongue say of {e}?",
        "Which of these foods tastes {v}: {list}?",
    ),
    relation(
        "job place",
        column(tables.JOBS, "place", "a"),
        "{e} works in the {v} / you can meet {e} in the {v}",
        "Where does {e} work? / In which place is {e} busy all day? / Where can you meet {e}?",
        "Who works in the {v}: {list}?",
    ),
    relation(
        "job work",
        column(tables.JOBS, "work", "a"),
        "the work of {e} is {v} / {e} earns money by {v}",
        "What is the work of {e}? / How does {e} earn money? / What is the duty of {e}?",
        "Who is paid for {v}: {list}?",
    ),
    relation(
        "job tool",
        column(tables.JOBS, "tool", "a"),
        "{e} uses the {v} / the tool of {e} is the {v}",
        "What tool does {e} use? / Which thing does {e} need for the job? / "
        "What does {e} work with?",
        "Who needs the {v} at work: {list}?",
    ),
    relation(
        "material source",
        column(tables.MATERIALS, "source"),
        "{e} comes from {v} / we get {e} from {v}",
        "Where does {e} come from? / From what do we get {e}? / What is the source of {e}?",
        "Which material comes from {v}: {list}?",
    ),
    relation(
        "material feel",
        column(tables.MATERIALS, "feel"),
        "{e} is {v} / in the hand {e} feels {v}",
        "How does {e} feel? / What is {e} like to the touch? / Which word describes {e} best?",
        "Which of these materials feels {v}: {list}?",
    ),
    relation(
        "material use",
        column(tables.MATERIALS, "use"),
        "{e} is good for {v} / workers turn {e} into {v}",
        "What is {e} good for? / What is {e} often turned into? / What do workers make out of {e}?",
        "Which material is good for {v}: {list}?",
    ),
    relation(
        "organ job",
        column(tables.BODY, "job", "the {}"),
        "{v} is the job of {e} / we have {e} for {v}",
        "What is the job of {e}? / What does our body need {e} for? / For what do we have {e}?",
        "Which part of the body is for {v}: {list}?",
    ),
    relation(
        "organ place",
        column(tables.BODY, "where", "the {}"),
        "you find {e} {v} / doctors look for {e} {v}",
        "Where in the body do you find {e}? / In what place do doctors look for {e}? / "
        "Point to {e}: where is that?",
        "Which part of the body sits {v}: {list}?",
    ),
    relation(
        "planet",
        column(tables.SKY, "look"),
        "{e} looks {v} / seen from space, {e} is {v}",
        "What does {e} look like? / How does {e} appear from space? / Describe the planet {e}.",
        "Which planet looks {v}: {list}?",
    ),
    relation(
        "gauge",
        column(tables.GAUGES, "measures", "a"),
        "{e} measures {v} / we read {v} from {e}",
        "What does {e} measure? / What do we read from {e}? / What can you find out with {e}?",
        "Which of these measures {v}: {list}?",
    ),
    relation(
        "weather cause",
        column(tables.WEATHER, "cause", "the {}"),
        "{e} is made by {v} / the cause of {e} is {v}",
        "What makes {e}? / What is the cause of {e}? / How does {e} arise?",
        "Which of these is made by {v}: {list}?",
    ),
    relation(
        "weather effect",
        column(tables.WEATHER, "brings", "the {}"),
        "{e} brings {v} / after {e} there is often {v}",
        "What does {e} bring? / What often follows {e}? / What do we get from {e}?",
        "Which of these brings {v}: {list}?",
    ),
)


@cache
def sizes() -> dict[str, int]:
    """Animals by size, from 1 (an insect) to 9 (an elephant)."""
    return {entity: int(size) for entity, size in column(tables.ANIMALS, "size", "a").items()}


@cache
def groups() -> dict[str, list[str]]:
    """Words by the group they belong to: animals by kind, foods by kind, things by group."""
    gathered: dict[str, list[str]] = {}
    for table, name in (
        (tables.ANIMALS, "kind"), (tables.FOODS, "kind"), (tables.THINGS, "group"),
    ):  # fmt: skip
        for word, group in column(table, name).items():
            gathered.setdefault(group, []).append(word)
    return {group: words for group, words in gathered.items() if len(words) >= 5}
