from hypothesis import given
from hypothesis import strategies as st

from sweetspot.data.seeding import seed_of

parts = st.lists(st.integers() | st.text(), max_size=4)


@given(parts)
def test_a_seed_fits_every_generator(values: list[int | str]) -> None:
    assert 0 <= seed_of(*values) < 2**63


@given(parts, parts)
def test_different_parts_give_different_seeds(a: list[int | str], b: list[int | str]) -> None:
    assert (seed_of(*a) == seed_of(*b)) == (a == b)


def test_a_number_is_not_its_text_and_order_matters() -> None:
    assert len({seed_of(1, 2), seed_of("1", 2), seed_of(2, 1), seed_of(12), seed_of("1,2")}) == 5


def test_seeds_are_the_same_in_every_version() -> None:
    assert seed_of(0, 7, "crop") == 2991042223292612283
