"""Spans: whose seconds are whose, by a clock that only the test moves."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from sweetspot import timing
from sweetspot.timing import Name, Recorder, span, step


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    yield clock
    assert timing._recorder is None


class Witness:
    """A watcher that keeps what it is told, and takes a second for it."""

    def __init__(self, clock: Clock) -> None:
        self.told: list[str] = []
        self._clock = clock

    def entering(self, name: Name) -> None:
        self._clock.spend(1)
        self.told.append(f"+{name}")

    def leaving(self, name: Name) -> None:
        self._clock.spend(1)
        self.told.append(f"-{name}")

    def stepped(self) -> None:
        self.told.append("step")


def test_the_seconds_of_a_span_are_its_own(clock: Clock) -> None:
    with Recorder() as recorder:
        clock.spend(1)
        with span("teacher"):
            clock.spend(2)
            with span("views"):
                clock.spend(4)
                with span("database"):
                    clock.spend(8)
            clock.spend(16)
            with span("views"):
                clock.spend(32)
        clock.spend(64)
    clock.spend(128)
    assert recorder.seconds == {"teacher": 18, "views": 36, "database": 8}
    assert recorder.wall == 127
    assert recorder.beside == {}


def test_a_span_within_one_of_its_name_is_counted_once(clock: Clock) -> None:
    with Recorder() as recorder, span("database"):
        clock.spend(1)
        with span("database"):
            clock.spend(2)
    assert recorder.seconds == {"database": 3}


def test_an_error_ends_every_span_that_it_leaves(clock: Clock) -> None:
    def fail() -> None:
        with span("students", epochs=1), span("views"):
            clock.spend(1)
            raise ZeroDivisionError

    with Recorder() as recorder:
        with pytest.raises(ZeroDivisionError):
            fail()
        with span("artifacts"):
            clock.spend(2)
    assert recorder.seconds == {"students": 0, "views": 1, "artifacts": 2}


def test_epochs_are_those_that_came_to_their_end(clock: Clock) -> None:
    with Recorder() as recorder:
        for _ in range(3):
            with span("teacher", epochs=1):
                pass
        with span("students", epochs=4):
            pass
        with pytest.raises(KeyboardInterrupt), span("teacher", epochs=1):
            raise KeyboardInterrupt
    assert recorder.epochs == {"teacher": 3, "students": 4}


def test_other_threads_are_counted_apart(clock: Clock) -> None:
    inside, done = threading.Event(), threading.Event()

    def beat() -> None:
        with span("database"):
            inside.set()
            done.wait()

    thread = threading.Thread(target=beat)
    witness = Witness(clock)
    with Recorder(witness) as recorder:
        thread.start()
        inside.wait()
        with span("teacher"):
            clock.spend(2)
        done.set()
        thread.join()
    assert recorder.seconds == {"teacher": 3}
    assert recorder.beside == {"database": 4}
    assert witness.told == ["+teacher", "-teacher"]


def test_what_comes_before_a_span_is_not_its_own_and_what_ends_it_is(clock: Clock) -> None:
    witness = Witness(clock)
    with Recorder(witness) as recorder, span("teacher"):
        clock.spend(10)
        step()
        with span("views"):
            clock.spend(5)
    assert witness.told == ["+teacher", "step", "+views", "-views", "-teacher"]
    assert recorder.seconds == {"teacher": 12, "views": 6}
    assert recorder.wall == 19


def test_without_a_recorder_nothing_is_counted(clock: Clock) -> None:
    with Recorder(Witness(clock)) as recorder:
        pass
    with span("teacher", epochs=1) as nothing:
        clock.spend(1)
    step()
    assert nothing is None
    assert span("views") is span("teacher"), "nothing is made for a span that nobody counts"
    assert (recorder.seconds, recorder.epochs, recorder.wall) == ({}, {}, 0)


def test_a_recorder_that_comes_between_the_ends_of_a_span_does_not_count_it(clock: Clock) -> None:
    with span("teacher"), Recorder() as recorder, span("views"):
        clock.spend(1)
    assert recorder.seconds == {"views": 1}


def test_there_is_one_recorder(clock: Clock) -> None:
    with Recorder() as recorder:
        with pytest.raises(RuntimeError, match="already"):
            Recorder().__enter__()
        with span("views"):
            clock.spend(1)
    assert recorder.seconds == {"views": 1}
