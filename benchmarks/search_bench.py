"""A table and the search that is replayed on it, many times, in several processes."""

import math
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import optuna

from benchmarks.search_methods import LARGE, METHODS, VARIANTS, Method
from benchmarks.search_pruning import PRUNERS
from benchmarks.search_regret import Course, Split, split
from benchmarks.search_replay import Recording, Seen
from sweetspot.config import Replicates, SearchConfig, StudyConfig, TeacherSearch
from sweetspot.errors import UserError
from sweetspot.report.table import Table

LEAST_TRIALS, MOST_TRIALS = 10, 40


def trials_of(points: int) -> int:
    """Of each search of a grid, where nothing else is asked for."""
    share = 1 / 8 if points >= LARGE else 1 / 4
    return min(points, MOST_TRIALS, max(LEAST_TRIALS, math.ceil(share * points)))


@dataclass(frozen=True)
class Bench:
    """A table, and the search that is replayed on it."""

    recording: Recording
    config: StudyConfig

    @classmethod
    def of(cls, table: Table, trials: int | None, replicates: int) -> "Bench":
        """
        Args:
            trials: of each search; None: so many as the module says.
            replicates: students of a point, at most.

        Raises:
            UserError: if the table cannot be searched.
        """
        study = table.config
        if others := _searched(study):
            raise UserError(
                f"the table's study searched {', '.join(others)}, too: only batch size and epochs are replayed"
            )
        recording = Recording(table)
        search = {
            "trials": trials or trials_of(len(recording.points)),
            "sampler": SearchConfig().sampler,
            "teacher": TeacherSearch(),
        }
        config = study.model_copy(
            update={
                "search": study.search.model_copy(update=search),
                "student": study.student.model_copy(
                    update={"replicates": Replicates(min=min(Replicates().min, replicates), max=replicates)}
                ),
            }
        )
        return cls(recording, config)

    def split(self, repetition: int) -> Split:
        return split(self.recording, repetition, np.random.default_rng(repetition))

    def search(self, method: Method, repetition: int, split: Split) -> Course:
        seen = Seen.of(self.recording, self.config, split.teacher_seed, split.replicates, repetition)
        return Course.of(method(seen), self.recording.points, split.regrets)

    def repetition(self, methods: Mapping[str, int], repetition: int) -> "Repetition":
        """One search with each of ``methods`` that has more repetitions than this one's number."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        drawn = self.split(repetition)
        every = METHODS | VARIANTS | PRUNERS
        courses = {
            name: self.search(every[name], repetition, drawn) for name, times in methods.items() if repetition < times
        }
        return Repetition(drawn, courses)


@dataclass(frozen=True)
class Repetition:
    """Searches that have seen the same."""

    split: Split
    courses: Mapping[str, Course]


def _searched(study: StudyConfig) -> list[str]:
    student, teacher = study.search.student, study.search.teacher
    there = {
        "the student's temperature": student.temperature, "alpha": student.alpha,
        "the teacher's learning rate": teacher.lr, "its model": teacher.model,
    }  # fmt: skip
    return [name for name, value in there.items() if value is not None]


# -- running ----------------------------------------------------------------------------------------------------------

_bench: Bench


def _begin(bench: Bench) -> None:
    global _bench  # noqa: PLW0603 - of this worker process: the table is sent to it once
    _bench = bench


def _repetition(methods: Mapping[str, int], repetition: int) -> Repetition:
    return _bench.repetition(methods, repetition)


def repetitions(bench: Bench, methods: Mapping[str, int], workers: int) -> list[Repetition]:
    """The repetitions of ``methods``, in order; whatever the number of workers, they are the same.

    Args:
        methods: names, with how often each is repeated.
    """
    numbers = range(max(methods.values()))
    if workers == 1:
        return [bench.repetition(methods, number) for number in numbers]
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (bench,)) as pool:
        return list(pool.map(partial(_repetition, methods), numbers))
