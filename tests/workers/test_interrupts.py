"""Ctrl-C that a library swallows on its way is not forgotten."""

import os
import signal
from contextlib import suppress

import pytest

from sweetspot.workers.supervisor import Supervisor, _remembered_interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_raised_and_remembered_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with _remembered_interrupts() as interrupted:
        assert not interrupted.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert interrupted.is_set()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_supervisor_ends_after_an_interrupt_that_was_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[int] = []

    def still_running(self: Supervisor, on_poll: object) -> bool:
        polls.append(len(polls))
        if len(polls) == 2:
            with suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        return len(polls) > 5

    monkeypatch.setattr(Supervisor, "_have_ended", still_running)
    with pytest.raises(KeyboardInterrupt):
        Supervisor.wait(object.__new__(Supervisor), lambda: None)
    assert len(polls) == 2
