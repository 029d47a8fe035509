"""Responses that are kept are those of the snapshot and the views that were asked about."""

import torch
from torch import Tensor

from sweetspot.student.responses import ResponseCache, SnapshotResponses


class Asked:
    """A snapshot's answers of 80 bytes, and what it was asked."""

    def __init__(self) -> None:
        self.views: list[int] = []

    def about(self, views: int) -> Tensor:
        self.views.append(views)
        return torch.full((2, 10), float(views))


def ask(responses: SnapshotResponses, asked: Asked, *views: int) -> list[float]:
    return [float(responses.get(v, lambda v=v: asked.about(v))[0, 0]) for v in views]  # type: ignore[misc]


def test_what_was_asked_once_is_not_asked_again() -> None:
    responses, asked = SnapshotResponses(), Asked()
    assert ask(responses, asked, 3, 1, 3, 2, 1) == [3, 1, 3, 2, 1]
    assert asked.views == [3, 1, 2]


def test_no_more_is_kept_than_fits_and_what_came_first_stays() -> None:
    """Epochs come in the same order each time: to make room for a later one would lose the next that is wanted."""
    responses, asked = SnapshotResponses(limit=160), Asked()
    ask(responses, asked, 0, 1, 2)
    assert ask(responses, asked, 0, 1, 2) == [0, 1, 2]
    assert asked.views == [0, 1, 2, 2]


def test_each_snapshot_has_its_own() -> None:
    cache, one, other = ResponseCache(), Asked(), Asked()
    ask(cache.of("one"), one, 0)
    ask(cache.of("other"), other, 0)
    ask(cache.of("other"), other, 0)
    assert (one.views, other.views) == ([0], [0])
    ask(cache.of("one"), one, 0)
    assert one.views == [0, 0]  # forgotten for the other
