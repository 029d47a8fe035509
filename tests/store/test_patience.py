"""Waiting for what does not answer: for as long as there is patience, and no longer."""

import time
from collections.abc import Callable, Iterator

import pytest

from sweetspot.store import outage
from sweetspot.store.outage import DatabaseDownError, Outages, patience


class Clock:
    """A clock that moves when somebody sleeps, and when it is told to."""

    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(outage.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(outage.time, "sleep", clock.sleep)
    yield clock
    assert time.monotonic() == clock.now


def make() -> Outages:
    return Outages(
        "database", lambda error: str(error) if isinstance(error, OSError) else None,
        lambda error, waited: DatabaseDownError(f"{error} for {waited:.0f} s"),
    )  # fmt: skip


def failing(times: int, before: Callable[[], None] = lambda: None) -> Callable[[], str]:
    left = [times]

    def work() -> str:
        before()
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("no answer")
        return "done"

    return work


def test_without_patience_it_is_tried_once(clock: Clock) -> None:
    outages = make()
    with pytest.raises(DatabaseDownError):
        outages.outlast(failing(1))
    assert (clock.now, outages.is_down) == (0.0, True)
    assert outages.outlast(failing(0)) == "done"
    assert not outages.is_down


def test_with_patience_it_is_tried_until_there_is_an_answer(clock: Clock) -> None:
    with patience(600):
        assert make().outlast(failing(30)) == "done"
    assert 100 < clock.now < 600


def test_patience_ends_and_is_not_spent_again_before_there_was_an_answer(clock: Clock) -> None:
    outages = make()
    with patience(60):
        with pytest.raises(DatabaseDownError, match="no answer for 60 s"):
            outages.outlast(failing(10**6))
        ended = clock.now
        with pytest.raises(DatabaseDownError):
            outages.outlast(failing(1))
        assert clock.now == ended
        assert outages.outlast(failing(0)) == "done"
        assert outages.outlast(failing(3)) == "done"


def test_time_for_which_the_process_was_stopped_is_no_waiting(clock: Clock) -> None:
    """A worker that is resumed finds its connection cut: it has not waited at all."""

    def stopped() -> None:
        clock.now += 1000.0

    with patience(60):
        assert make().outlast(failing(3, stopped)) == "done"


def test_who_is_to_end_soon_does_not_wait_long(clock: Clock) -> None:
    outages = make()
    outages.hurry = lambda: clock.now > 3
    with patience(600), pytest.raises(DatabaseDownError):
        outages.outlast(failing(10**6))
    assert clock.now < 20


def test_other_errors_pass(clock: Clock) -> None:
    def work() -> None:
        raise ValueError("a mistake")

    outages = make()
    with patience(600), pytest.raises(ValueError, match="a mistake"):
        outages.outlast(work)
    assert not outages.is_down
