"""A process of a benchmark's arm that trains nothing; imports little, since processes start with it."""

import os

from benchmarks.throughput_arms import Runner, Span
from benchmarks.throughput_job import Job
from sweetspot.errors import UserError


class Counting(Runner):
    """Its index says how many images it has in an epoch of one second."""

    def __init__(self, job: Job, index: int, *, fails: str = "") -> None:
        super().__init__(job)
        self._images = 10 * (index + 1)
        self._fails = fails
        if fails == "making":
            raise UserError("no such thing")

    def run(self, epochs: int) -> Span:
        if self._fails == "running":
            raise ZeroDivisionError("nothing there")
        if self._fails == "dying":
            os._exit(1)
        return Span(0.0, 1.0, epochs * self._images, 0)
