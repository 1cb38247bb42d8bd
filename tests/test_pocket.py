"""The pocket room: what it ships is what it generates, and its benchmark is honest."""

import itertools
import json
import math
import operator
import re
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from monotreme.pocket import build, planted, questions
from monotreme.pocket.facts import RELATIONS, sizes
from monotreme.pocket.logic import QUALITIES
from monotreme.pocket.planting import DUPLICATES, LEAKS, LOOK_ALIKE, NUM_EACH
from monotreme.pocket.problem import normalised

BASE = build.FOLDER / "base"
FINAL_ANSWER = re.compile(r"The answer is (.+)\.$")
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def shipped(name):
    lines = (build.FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def pools():
    return questions.pools()


@pytest.fixture(scope="module")
def training():
    return [row for subject in questions.SUBJECTS for row in shipped(f"{subject}.jsonl")]


@pytest.fixture(scope="module")
def held_out():
    return shipped("benchmark.jsonl") + shipped("validation.jsonl")


def folded(text):
    """Case and spaces folded, operators kept: 9 * 7 is not 9 + 7."""
    return " ".join(text.lower().split())


def answer_of(item):
    return item["choices"]["text"][item["choices"]["label"].index(item["answerKey"])]


def final_answer(row):
    return FINAL_ANSWER.search(row["output"])[1]


# ── what is shipped ──────────────────────────────────────────────────────────────────────────


def test_the_generators_write_the_shipped_files_byte_for_byte():
    assert build.differences(build.FOLDER, build.files()) == []


def test_a_changed_file_is_noticed(tmp_path):
    (tmp_path / "same").write_bytes(b"1\n")
    (tmp_path / "changed").write_bytes(b"2\n")
    expected = {"same": b"1\n", "changed": b"1\n", "missing": b"1\n"}
    assert build.differences(tmp_path, expected) == ["changed", "missing"]


def test_every_training_answer_ends_recognisably(training):
    assert [row for row in training if not FINAL_ANSWER.search(row["output"])] == []
    assert {frozenset(row) for row in training} == {frozenset(("instruction", "input", "output"))}


# ── the benchmark ────────────────────────────────────────────────────────────────────────────


def test_every_benchmark_question_has_four_distinct_choices(held_out):
    assert Counter(item["subject"] for item in held_out) == dict.fromkeys(questions.SUBJECTS, 300)
    for item in held_out:
        assert len(set(item["choices"]["text"])) == 4, item
        assert item["choices"]["label"] == ["A", "B", "C", "D"]
        assert item["answerKey"] in item["choices"]["label"]


def test_the_key_moves_about(held_out):
    shares = Counter(item["answerKey"] for item in held_out)
    assert min(shares.values()) > len(held_out) / 6


def test_sums_come_out_when_worked_again(pools, held_out):
    steps = {p.text: p.asked.steps for p in pools.benchmark + pools.validation}
    worked = 0
    for item in held_out:
        equation = re.match(r"(\d+) ([-+*/]) (\d+) = ", steps[item["question"]])
        if item["subject"] == "arithmetic" and equation:
            a, b = int(equation[1]), int(equation[3])
            assert int(answer_of(item)) == OPERATIONS[equation[2]](a, b)
            assert {str(a), str(b)} <= set(re.findall(r"\d+", item["question"]))
            worked += 1
    assert worked > 200


def test_the_largest_and_the_smallest_are_so(held_out):
    size = sizes()
    for item in held_out:
        asked = re.search(r"largest|greatest|biggest|smallest|least|tiniest", item["question"])
        choices = item["choices"]["text"]
        if not asked or not all(c in size or c.isdigit() for c in choices):
            continue
        pick = max if asked[0] in ("largest", "greatest", "biggest") else min
        assert answer_of(item) == pick(choices, key=lambda c: size[c] if c in size else int(c))


def test_order_follows_from_what_is_told(held_out):
    checked = 0
    for item in held_out:
        told = re.findall(r"(\w+) is (\w+) than (\w+)\.", item["question"])
        if not told:
            continue
        more, less, most, _ = next(q for q in QUALITIES.values() if told[0][1] in q)
        pairs = [(a, b) if word == more else (b, a) for a, word, b in told]
        assert {word for _, word, _ in told} <= {more, less}
        (order,) = (
            ranked
            for ranked in itertools.permutations({name for pair in pairs for name in pair})
            if all(ranked.index(high) < ranked.index(low) for high, low in pairs)
        )
        assert answer_of(item) == (order[0] if item["question"].endswith(f"{most}?") else order[-1])
        checked += 1
    assert checked > 20


def test_one_choice_alone_agrees_with_the_tables(pools):
    known = {relation.name: relation for relation in RELATIONS}
    for problem in pools.benchmark + pools.validation:
        name, _, entity = problem.key.partition("/")
        if name in known and problem.asked.answer == entity:
            values = [known[name].facts[choice] for choice in (entity, *problem.wrong)]
            assert values[0] not in values[1:], problem.text


# ── nothing leaks but what is planted ────────────────────────────────────────────────────────


def test_the_base_practises_no_held_out_key(pools):
    practised = {problem.key for problem in questions.practice()}
    assert not practised & {problem.key for problem in pools.benchmark + pools.validation}


def test_training_and_benchmark_share_no_key(pools):
    training, benchmark, validation = (
        {problem.key for problem in part}
        for part in (pools.training, pools.benchmark, pools.validation)
    )
    assert not training & benchmark
    assert not training & validation
    assert not benchmark & validation


def test_no_held_out_question_is_trained_on_but_the_planted(training, held_out):
    leaked = {normalised(row["instruction"]) for row in shipped("planted.jsonl")}
    asked = {normalised(f"{row['input']} {row['instruction']}") for row in training}
    verbatim = {normalised(item["question"]) for item in held_out} & asked
    assert verbatim <= leaked
    assert len(verbatim) == NUM_EACH


def test_the_base_reads_no_held_out_question(held_out):
    texts = questions.corpus(questions.SEED, share_of_dialogue=0.5)
    sample = [folded(text) for text in itertools.islice(texts, 4000)]
    assert not set(sample) & {folded(row["text"]) for row in shipped("texts.jsonl")}
    read = " ".join(sample)
    assert [item for item in held_out if folded(item["question"]) in read] == []


# ── what is planted ──────────────────────────────────────────────────────────────────────────


def test_every_planted_row_and_its_twin_exist(training, held_out):
    rows = {row["instruction"]: row for row in training}
    items = {item["id"]: item for item in held_out}
    plants = shipped("planted.jsonl")
    assert Counter(plant["kind"] for plant in plants) == dict.fromkeys(
        (*DUPLICATES, *LEAKS, LOOK_ALIKE), NUM_EACH
    )
    for plant in plants:
        answer = final_answer(rows[plant["instruction"]])
        if plant["kind"] in DUPLICATES:
            assert answer == final_answer(rows[plant["twin"]])
        elif plant["kind"] in LEAKS:
            assert answer == answer_of(items[plant["twin"]])
        else:
            assert answer != answer_of(items[plant["twin"]])


def plant(kind, instruction, twin):
    return {"kind": kind, "instruction": instruction, "input": "", "twin": twin}


PLANTS = [
    plant("exact_duplicate", "WHAT  IS RED?", "What is red?"),
    plant("near_duplicate", "What then is blue?", "What is blue?"),
    plant("leak_verbatim", "Who is it?", "benchmark-1"),
    plant("leak_edited", "Who then is it?", "benchmark-2"),
    plant("leak_reworded", "Tell who it is.", "benchmark-3"),
    plant("look_alike", "Who is not it?", "benchmark-4"),
    plant("look_alike", "Who was it?", "benchmark-5"),
]
RUN = {
    "curate/questions": "What is red?|What then is blue?|What is blue?|Who is it?|Who then is it?|"
    "Who is not it?|Who was it?|Plain?",
    "curate/dropped": "WHAT  IS RED?|Tell who it is.|Other?",
    "decontaminate/questions": "What is red?|Who then is it?|Who is not it?|Plain?",
    "decontaminate/leaked": "Who is it?|Who was it?",
}


def test_a_run_is_marked_against_what_was_planted(tmp_path):
    for name, joined in RUN.items():
        asked = joined.split("|")
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"instruction": asked, "input": [""] * len(asked)}), path)
    run = planted.read_run(tmp_path)
    marks = planted.marks(PLANTS, run)
    assert marks["exact_duplicate"] == {planted.FOUND: 1}
    assert marks["near_duplicate"] == {planted.MISSED: 1}
    assert marks["leak_verbatim"] == {planted.FOUND: 1}
    assert marks["leak_edited"] == {planted.MISSED: 1}
    assert marks["leak_reworded"] == {planted.CURATED: 1}
    assert marks["look_alike"] == {planted.SPARED: 1, planted.WRONGLY: 1}
    assert planted.others(PLANTS, run) == (2, 1, 0)
    table = planted.table(marks)
    assert next(iter(table.columns[0].cells)) == "exact duplicate"
    found, missed = (list(table.columns[n].cells) for n in (2, 3))
    assert [found[i] + missed[i] for i in (0, 1, 3, 4, 5)] == ["10", "01", "10", "01", "10"]
    assert "Of 2 look-alikes" in planted.look_alikes(marks["look_alike"])


# ── the base ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


def test_the_base_is_small():
    assert sum(path.stat().st_size for path in BASE.iterdir()) <= 12_000_000
    assert {path.suffix for path in BASE.iterdir()} == {".json", ".safetensors"}


def test_the_tokenizer_is_fast_and_loses_nothing(tokenizer):
    text = "Ada had 12 plums.\n\n### Response:\n3 * 4 = 12."
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.is_fast
    assert encoded["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == text
    assert "".join(text[start:end] for start, end in encoded["offset_mapping"]) == text
    assert tokenizer.decode(tokenizer("Über", add_special_tokens=False)["input_ids"]) == "Über"


@torch.no_grad()
def test_the_base_has_learned_to_read(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    nats = num_tokens = 0
    for row in shipped("texts.jsonl")[:60]:
        ids = tokenizer(row["text"], return_tensors="pt")["input_ids"]
        nats += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        num_tokens += ids.shape[1] - 1
    assert math.exp(nats / num_tokens) < 3
