"""StudyResult: what a study has found, as values; and the JSON that programs read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import StudyConfig
from sweetspot.errors import RunError, UserError
from sweetspot.report.curves import TeacherCurve, read_curves
from sweetspot.report.points import PointSummary, summaries
from sweetspot.store import Store, StudyRecord, WorkerRecord
from sweetspot.study.confirmation import ACCURATE, ALONE, BEST, LONGEST, Confirmation, confirmation, failed_arm
from sweetspot.study.inference import Interval
from sweetspot.study.ranking import Ranked, ranking, teacher_at
from sweetspot.study.search import CONFIRM, Counts, companions, get_study, is_given_back, load
from sweetspot.study.space import ExternalPoint, Point, config_at
from sweetspot.training.schedules import schedule

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Cost:
    """What a study has cost, its confirmation included.

    Attributes:
        teacher_epochs_requested: what the same work would have trained without a store.
        teacher_epochs_trained: what it trained.
        seconds: of workers, training and measuring; waiting is not counted.
    """

    teacher_epochs_requested: int
    teacher_epochs_trained: int
    student_epochs: int
    seconds: float

    @classmethod
    def of(cls, search: Sequence[FrozenTrial], confirming: Sequence[FrozenTrial]) -> "Cost":
        """Of the trials of a study and of its confirmation."""
        both = [*search, *confirming]
        finished = (TrialState.COMPLETE, TrialState.PRUNED)
        requested = sum(t.user_attrs.get("epochs_reached", 0) for t in both if t.state in finished)
        phases = [t.user_attrs.get("seconds", {}) for t in both]
        return cls(
            requested,
            sum(t.user_attrs.get("epochs_trained", 0) for t in both),
            sum(t.user_attrs.get("student_epochs", 0) for t in both),
            sum(seconds for phase in phases for name, seconds in phase.items() if name != "waiting"),
        )


@dataclass(frozen=True)
class StudyResult:
    """A study as it stands: its trials, its points ranked, its confirmation, its cost.

    Accuracies are fractions, times seconds, entropies nats.
    """

    record: StudyRecord
    trials: tuple[FrozenTrial, ...]
    ranked: tuple[Ranked, ...]
    confirmation: Confirmation | None
    """Of the best point; None before there is one."""
    is_stale: bool
    """A confirmation was made of an earlier best point; the search has found another since."""
    failed_arm: str | None
    """Which arm of the confirmation failed for good, and why."""
    cost: Cost
    best_measures: dict[str, float | None]
    """Of the best point's teacher: its validation accuracy, and similarity measures on training views."""
    workers: tuple[WorkerRecord, ...]
    confirming: tuple[FrozenTrial, ...] = ()
    """The trials of the confirmation, whatever it was of."""
    train_images: int = 0
    """0 until they are known."""
    classes: tuple[str, ...] = ()
    curves: tuple[TeacherCurve, ...] = ()
    """Of the study's teachers along their epochs, by batch size; only where they were asked for."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def config(self) -> StudyConfig:
        return self.record.config

    @cached_property
    def counts(self) -> Counts:
        return Counts.of(self.trials)

    @cached_property
    def points(self) -> tuple[PointSummary, ...]:
        """Every point that was visited, in the order of the first visits."""
        return summaries(self.config, self.trials, self.ranked, self.train_images)

    @property
    def best(self) -> Ranked | None:
        """The best point so far."""
        return self.ranked[0] if self.ranked else None

    @property
    def epochs_mean(self) -> str:
        """What "a teacher of n epochs" is in this study: "truncated" or "annealed"."""
        return schedule(self.config.teacher.schedule, self.config.search.ladder[0]).epochs_mean

    def to_dict(self) -> dict[str, Any]:
        """What ``sweetspot best --json`` prints.

        Raises:
            RunError: if no trial has finished.
        """
        best = self.best
        if best is None:
            raise RunError(f"the study {self.name!r} has no finished trial yet: see sweetspot status {self.name}")
        confirmed = self.confirmation
        return {
            "study": self.name,
            "dataset": self.config.data.dataset,
            "teacher": config_at(self.config, best.point).teacher.model,
            "student": self.config.student.model,
            "batch_size": best.point.batch_size,
            "epochs": best.point.epochs,
            **({"parameters": dict(best.point.others)} if best.point.others else {}),
            "steps": best.steps,
            "under_trained": best.is_under_trained,
            "epochs_mean": self.epochs_mean,
            "accuracy": _accuracy(best.accuracies, "validation"),
            "test_accuracy": _accuracy(confirmed.accuracies[BEST], "test") if confirmed else None,
            **self.best_measures,
            "confirmed": confirmed.verdict.confirmed if confirmed else None,
            "verdict": self.verdict,
            "test_looks": confirmed.plan.looks if confirmed else 0,
            "baselines": self._baselines(confirmed),
            "gain": {
                "over_student_alone": _gain(confirmed, ALONE),
                "over_most_accurate_teacher": _gain(confirmed, ACCURATE),
                "over_longest_teacher": _gain(confirmed, LONGEST),
                **{f"over_{arm}": _gain(confirmed, arm) for arm in _yours(confirmed)},
            },
            "trials": self.trials_dict(),
            "cost": self.cost_dict(),
        }

    def _baselines(self, confirmed: Confirmation | None) -> dict[str, Any]:
        baselines: dict[str, Any] = dict.fromkeys((ALONE, ACCURATE, LONGEST, *_yours(confirmed)))
        if confirmed is None:
            return baselines
        for arm in baselines:
            if arm not in confirmed.accuracies:
                continue
            baselines[arm] = _accuracy(confirmed.accuracies[arm], "test")
            point = confirmed.plan.points[arm]
            if isinstance(point, Point):
                baselines[arm] |= {"batch_size": point.batch_size, "epochs": point.epochs}
            elif point is not None:
                baselines[arm] |= {"name": point.name, "model": point.model, "epochs": point.epochs}
        return baselines

    @property
    def verdict(self) -> str:
        """In words, what the confirmation found; or why there is none."""
        if self.confirmation is not None:
            return self.confirmation.verdict.words
        if self.failed_arm is not None:
            return f"not confirmed: the confirmation failed at {self.failed_arm}"
        if self.is_stale:
            return "not confirmed yet: the search has found another best point since the last confirmation"
        if self.best is not None and self.best.is_under_trained:
            return (
                f"not confirmed: every point has fewer than search.min_steps = {self.config.search.min_steps} teacher "
                "steps, so that none can be the sweet spot; search longer teachers"
            )
        if self.config.confirm.seeds == 0:
            return "not confirmed: the confirmation was left out; run the same command without --no-confirm"
        return "not confirmed yet: the best point so far, by validation accuracy"

    def trials_dict(self) -> dict[str, int]:
        counts = self.counts
        return {
            "complete": counts.complete,
            "pruned": counts.pruned,
            "failed": counts.failed,
            "running": counts.running,
            "waiting": counts.waiting,
        }

    def cost_dict(self) -> dict[str, Any]:
        cost = self.cost
        return {
            "teacher_epochs_requested": cost.teacher_epochs_requested,
            "teacher_epochs_trained": cost.teacher_epochs_trained,
            "student_epochs": cost.student_epochs,
            "seconds": round(cost.seconds, 3),
        }

    def status_dict(self) -> dict[str, Any]:
        """One entry of what ``sweetspot status --json`` prints."""
        best = self.best
        return {
            "study": self.name,
            "dataset": self.config.data.dataset,
            "trials": {**self.trials_dict(), "total": self.config.search.trials},
            "ended": self.record.ended,
            "best": None
            if best is None
            else {
                "batch_size": best.point.batch_size,
                "epochs": best.point.epochs,
                **({"parameters": dict(best.point.others)} if best.point.others else {}),
                "accuracy": _accuracy(best.accuracies, "validation"),
                "confirmed": self.confirmation.verdict.confirmed if self.confirmation else None,
            },
            "workers": [
                {
                    "host": worker.host,
                    "device": worker.device,
                    "pid": worker.pid,
                    "phase": worker.phase,
                    **worker.detail,
                    "last_seen": worker.last_seen.isoformat(timespec="seconds") + "Z",
                }
                for worker in self.workers
            ],
            "cost": self.cost_dict(),
        }

    def trials_list(self) -> list[dict[str, Any]]:
        """What ``sweetspot trials --json`` prints: the trials in order, those given back left out."""
        shown = [t for t in self.trials if not is_given_back(t)]
        return [
            {
                "number": t.number,
                "state": t.state.name.lower(),
                **(t.params or t.system_attrs.get("fixed_params", {})),
                "value": t.value if t.state == TrialState.COMPLETE else None,
                **{k: v for k, v in sorted(t.user_attrs.items()) if k != "worker"},
            }
            for t in shown
        ]

    @property
    def pruned(self) -> int:
        """How many trials were pruned on similarity entropy; ``counts.pruned`` has those that could not be run, too."""
        return self.counts.pruned - self.infeasible

    @property
    def infeasible(self) -> int:
        """How many trials could not be run: the loss was not finite, or memory ran out."""
        pruned = [t for t in self.trials if t.state == TrialState.PRUNED and not is_given_back(t)]
        return sum("infeasible" in t.user_attrs for t in pruned)

    @property
    def would_have_pruned(self) -> tuple[int, int]:
        """Of the trials that the pruner would have stopped but let run: how many were within the margin of the best
        after all, and how many there are. The observed rate of false prunes."""
        let_run = [t for t in self.trials if "would_prune" in t.user_attrs and t.state == TrialState.COMPLETE]
        if self.best is None or not let_run:
            return 0, len(let_run)
        best = fmean(self.best.accuracies) - self.config.confirm.margin
        return sum((t.value or 0.0) >= best for t in let_run), len(let_run)

    # -- for notebooks ------------------------------------------------------------------------------------------------

    def plot_map(self) -> "Figure":
        """The students' accuracy over batch size and epochs, as a plotly figure.

        Raises:
            NothingToShow: where there is nothing yet to be shown; as the methods below.
        """
        return self._plot("map")

    def plot_entropy(self) -> "Figure":
        """Similarity entropy along the epochs, and what the pruner has learned of it."""
        return self._plot("entropy")

    def plot_tradeoff(self) -> "Figure":
        """Teacher accuracy against student accuracy, coloured by similarity entropy."""
        return self._plot("tradeoff")

    def plot_steps(self) -> "Figure":
        """Student accuracy against the teacher's steps, for each batch size."""
        return self._plot("steps")

    def plot_cost(self) -> "Figure":
        """What was spent, and saved by sharing."""
        return self._plot("cost")

    def plot_confirm(self) -> "Figure":
        """The arms of the confirmation, and the best point's gains, with intervals."""
        return self._plot("confirm")

    def _plot(self, name: str) -> "Figure":
        from sweetspot.report.figures.catalogue import FIGURES
        from sweetspot.report.figures.plotly import plotly_figure

        return plotly_figure(FIGURES[name](self))

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each point visited, in the order of the first visits; parameters are columns.

        Raises:
            UserError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise UserError(
                "to_dataframe() needs pandas, which is not installed: in a clone ./uvw sync --extra notebook, for "
                "another environment pip install '.[notebook]' in it"
            ) from None
        from sweetspot.report.points import table

        return pd.DataFrame(table(self.points))

    def _repr_html_(self) -> str:
        """What a notebook shows: the study, the best point, the verdict, and the best of the points."""
        from sweetspot.report.notebook import html_of

        return html_of(self)


def read_result(
    store: Store, name: str | None, *, with_confirmation: bool = True, with_curves: bool = False
) -> StudyResult:
    """The result of a study, or of the only one there is.

    Args:
        with_confirmation: whether its intervals are computed, which takes up to a second.
        with_curves: whether what was measured along the teachers' epochs is read, for figures.

    Raises:
        UserError: if there is none of this name, or the name is left out and there are several.
    """
    record = get_study(store, name)
    study = load(store, record.name)
    trials = tuple(study.get_trials(deepcopy=False))
    attrs = study.user_attrs
    images = attrs.get("train_images", 0)
    ranked = ranking(store, record, trials, images) if images else []
    confirming: list[FrozenTrial] = []
    if companions(store, record.name):
        confirming = load(store, record.name + CONFIRM).get_trials(deepcopy=False)
    confirmed = confirmation(store, record) if confirming and with_confirmation else None
    is_current = confirmed is not None and bool(ranked) and ranked[0].point == confirmed.plan.points[BEST]
    return StudyResult(
        record=record,
        trials=trials,
        ranked=tuple(ranked),
        confirmation=confirmed if is_current else None,
        is_stale=confirmed is not None and not is_current,
        failed_arm=failed_arm(store, record.name) if confirming and confirmed is None else None,
        cost=Cost.of(trials, confirming),
        best_measures=_best_measures(store, record, ranked),
        workers=tuple(w for w in store.workers.of_study(record.name) if not w.ended),
        confirming=tuple(confirming),
        train_images=images,
        classes=tuple(attrs.get("classes", ())),
        curves=_curves(store, record, ranked, trials, images) if with_curves and images else (),
    )


def read_results(store: Store) -> list[StudyResult]:
    """The results of all studies, by creation."""
    return [read_result(store, record.name) for record in store.studies.all()]


def _curves(
    store: Store, record: StudyRecord, ranked: Sequence[Ranked], trials: Sequence[FrozenTrial], images: int
) -> tuple[TeacherCurve, ...]:
    visited = [Point.of(t.params) for t in trials if {"batch_size", "epochs"} <= t.params.keys()]
    return read_curves(store, record, [*(each.point for each in ranked), *visited], images)


def _best_measures(store: Store, record: StudyRecord, ranked: Sequence[Ranked]) -> dict[str, float | None]:
    names = ("similarity_entropy", "similarity_information", "delivered_similarity")
    if not ranked or (measured := teacher_at(store, record, ranked[0].point)) is None:
        return dict.fromkeys(("teacher_accuracy", *names))
    views = measured["train"].values
    return {"teacher_accuracy": measured["validation"].values["accuracy"], **{name: views[name] for name in names}}


def _yours(confirmed: Confirmation | None) -> list[str]:
    """The arms of teachers that were trained elsewhere."""
    points = confirmed.plan.points if confirmed else {}
    return [arm for arm, point in points.items() if isinstance(point, ExternalPoint)]


def _accuracy(values: Sequence[float], split: str) -> dict[str, Any]:
    return {
        "mean": fmean(values),
        "std": stdev(values) if len(values) > 1 else None,
        "replicates": len(values),
        "split": split,
    }


def _gain(confirmed: Confirmation | None, arm: str) -> dict[str, float] | None:
    gain: Interval | None = confirmed.gains[arm] if confirmed else None
    return None if gain is None else {"mean": gain.mean, "low": gain.low, "high": gain.high}
