"""Every epoch is every question once, in an order that only the seed decides; rows keep it."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from monotreme.train import batches


def test_one_epoch_of_the_paper_is_1558_updates() -> None:
    """24,926 questions in batches of 16; the last one has 14."""
    assert batches.num_steps(24_926, 16, 1) == 1558
    assert len(batches.questions_of_step(24_926, 16, 42, 1557)) == 14


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_every_epoch_is_every_question_once(num: int, size: int, epochs: int, seed: int) -> None:
    total = batches.num_steps(num, size, epochs)
    steps = [batches.questions_of_step(num, size, seed, step).tolist() for step in range(total)]
    each = total // epochs
    for epoch in range(epochs):
        read = [q for step in steps[epoch * each : (epoch + 1) * each] for q in step]
        assert sorted(read) == list(range(num))
        assert read == batches.order(num, seed, epoch).tolist()


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert batches.order(8, 42, 0).tolist() == [4, 1, 3, 6, 0, 7, 2, 5]  # on every machine
    orders = {tuple(batches.order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 60))
def test_rows_keep_order_and_budget(lengths: list[int], budget: int) -> None:
    runs = batches.cut(lengths, budget)
    assert [n for run in runs for n in lengths[run]] == lengths
    assert all(sum(lengths[run]) <= budget or len(lengths[run]) == 1 for run in runs)
    for this, following in pairwise(runs):  # no run ends while the next question would fit
        assert sum(lengths[this]) + lengths[following][0] > budget


def test_a_part_of_an_epoch_reaches_its_share_and_no_more() -> None:
    assert batches.num_steps(100, 16, 0.5) == 4
    reached = batches.questions_reached(100, 16, 7, 0.5)
    seen = {i for step in range(4) for i in batches.questions_of_step(100, 16, 7, step).tolist()}
    assert set(reached.tolist()) == seen
    assert batches.questions_reached(100, 16, 7, 3).tolist() == list(range(100))
