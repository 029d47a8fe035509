"""Outages: what a worker does while the database, or the artifacts, do not answer."""

import functools
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sweetspot.errors import RunError
from sweetspot.timing import Name, span

_log = logging.getLogger(__name__)
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_HURRY_SECONDS = 5.0
_LONGEST_ATTEMPT = 10.0

P = ParamSpec("P")
T = TypeVar("T")

_patience: ContextVar[float] = ContextVar("patience", default=0.0)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Within the block, this thread waits so long for what does not answer; outside of any, and in new threads, not."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


class DatabaseDownError(RunError):
    """The database does not answer, and has not for as long as the thread that asks has patience."""


class Outages:
    """Whether something that workers share answers, and the waiting until it does.

    Args:
        what: it is: "database" or "artifacts", as messages and timings name it.
        reason: why an error means that it does not answer; None if it means something else.
        give_up: the error to raise, of such an error and the seconds waited.

    Attributes:
        is_down: whether the last that was heard of it, in whatever thread, is that it does not answer.
        hurry: asked while waiting: whether the process is to end soon, so that there is no time for patience.
    """

    def __init__(
        self,
        what: Name,
        reason: Callable[[Exception], str | None],
        give_up: Callable[[Exception, float], Exception],
    ) -> None:
        self.is_down = False
        self.hurry: Callable[[], bool] = lambda: False
        self._what: Name = what
        self._reason = reason
        self._give_up = give_up
        self._has_given_up = False

    def outlast(self, work: Callable[[], T]) -> T:
        """``work()``, again and again while there is no answer, for as long as this thread has :func:`patience`.

        Once patience has ended, later calls do not wait again until there has been an answer.

        Args:
            work: may be done twice: an answer that is lost says nothing of what was done.

        Raises:
            Exception: as given to the constructor, when patience ends.
        """
        with span(self._what):
            return self._outlast(work)

    def _outlast(self, work: Callable[[], T]) -> T:
        # What is counted is the waiting itself, not how long this process may have been stopped meanwhile.
        waited, pause = 0.0, _FIRST_PAUSE
        is_waiting = False
        while True:
            asked = time.monotonic()
            try:
                result = work()
            except Exception as error:
                why = self._reason(error)
                if why is None:
                    raise
                self.is_down = True
                if is_waiting:
                    waited += min(time.monotonic() - asked, _LONGEST_ATTEMPT)
                left = min(_patience.get(), _HURRY_SECONDS) if self.hurry() else _patience.get()
                if waited >= left or self._has_given_up:
                    self._has_given_up |= left > 0
                    given_up = self._give_up(error, waited)
                    if given_up is error:
                        raise
                    raise given_up from error
                if not is_waiting:
                    _log.warning("%s: waiting up to %.0f s for the %s", why, left, self._what)
                    is_waiting = True
                # Jittered, so that workers that lost it together do not come back together.
                seconds = min(random.uniform(0.5, 1.0) * pause, max(left - waited, 0.05))
                time.sleep(seconds)
                waited += seconds
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if is_waiting:
                    _log.warning("the %s answers again after %.0f s", self._what, waited)
                self.is_down = self._has_given_up = False
                return result


class _HasOutages(Protocol):
    outages: Outages


Self = TypeVar("Self", bound=_HasOutages)


def outlasting(method: Callable[Concatenate[Self, P], T]) -> Callable[Concatenate[Self, P], T]:
    """A method that is one unit of work, repeated while there is no answer: see :meth:`Outages.outlast`."""

    def patient(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.outages.outlast(lambda: method(self, *args, **kwargs))

    functools.update_wrapper(patient, method)
    return patient


C = TypeVar("C", bound=type[Any])


def outlasting_methods(owner: C) -> C:
    """A class each of whose public methods is a unit of work: see :func:`outlasting`."""
    for name, member in list(vars(owner).items()):
        if callable(member) and not name.startswith("_"):
            setattr(owner, name, outlasting(member))
    return owner
