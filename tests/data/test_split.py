from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sweetspot.data.split import split
from sweetspot.errors import UserError

seeds = st.integers(0, 2**31 - 1)


@st.composite
def splittable(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """Labels in any order, some of them perhaps absent, and a number of validation images that is allowed."""
    counts = draw(st.lists(st.integers(1, 30), min_size=1, max_size=8).filter(lambda c: sum(c) >= 2 * len(c)))
    labels = [label * 2 for label, count in enumerate(counts) for _ in range(count)]
    labels = draw(st.permutations(labels))
    return torch.tensor(labels), draw(st.integers(len(counts), len(labels) - len(counts)))


@given(splittable(), seeds)
def test_every_image_is_in_exactly_one_part_and_the_size_is_exact(case: tuple[torch.Tensor, int], seed: int) -> None:
    labels, validation = case
    train, held_out = split(labels, validation, seed)
    assert len(held_out) == validation
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(len(labels)))
    assert train.dtype == held_out.dtype == torch.int64
    assert train.tolist() == sorted(train.tolist())
    assert held_out.tolist() == sorted(held_out.tolist())


@given(splittable(), seeds)
def test_every_class_keeps_an_image_in_training(case: tuple[torch.Tensor, int], seed: int) -> None:
    labels, validation = case
    train, _ = split(labels, validation, seed)
    assert set(labels[train].tolist()) == set(labels.tolist())


@given(splittable(), seeds)
def test_no_class_has_an_image_more_than_its_share(case: tuple[torch.Tensor, int], seed: int) -> None:
    labels, validation = case
    _, held_out = split(labels, validation, seed)
    counts, taken = labels.bincount(), labels[held_out].bincount(minlength=len(labels.bincount()))
    for count, got in zip(counts.tolist(), taken.tolist(), strict=True):
        share = Fraction(validation * count, len(labels))
        # a class that may give no more leaves its part to the others
        kept_one = any(c and t == c - 1 for c, t in zip(counts.tolist(), taken.tolist(), strict=True))
        assert got > share - 1 or got == count - 1
        assert got < share + 1 or kept_one


@given(splittable(), seeds)
def test_a_split_follows_from_its_seed_alone(case: tuple[torch.Tensor, int], seed: int) -> None:
    labels, validation = case
    torch.manual_seed(seed % 3)
    first = split(labels, validation, seed)
    torch.manual_seed(seed % 3 + 1)
    second = split(labels, validation, seed)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_balanced_set_is_split_evenly() -> None:
    labels = torch.arange(500) % 10
    _, held_out = split(labels, 50, 0)
    assert labels[held_out].bincount().tolist() == [5] * 10


def test_below_one_it_is_a_fraction_rounded_to_whole_images() -> None:
    labels = torch.arange(1397) % 10
    assert len(split(labels, 0.1, 0)[1]) == 140
    assert torch.equal(split(labels, 0.1, 0)[1], split(labels, 140, 0)[1])


def test_another_seed_holds_out_other_images() -> None:
    labels = torch.arange(500) % 10
    assert not torch.equal(split(labels, 50, 0)[1], split(labels, 50, 1)[1])


def test_a_split_is_the_same_on_every_machine() -> None:
    labels = torch.arange(40) % 4
    assert split(labels, 8, 0)[1].tolist() == [3, 8, 9, 12, 17, 18, 22, 39]


@pytest.mark.parametrize("validation", [1, 9, 91, 100, 5000, 0.01, 0.99])
def test_too_many_or_too_few_are_refused_with_what_is_allowed(validation: int | float) -> None:
    with pytest.raises(UserError, match=r"of 100 training images: allowed are 10 .* to 90"):
        split(torch.arange(100) % 10, validation, 0)


def test_a_set_too_small_to_split_says_so() -> None:
    with pytest.raises(UserError, match="5 training images of 3 classes are too few"):
        split(torch.tensor([0, 0, 1, 1, 2]), 3, 0)
