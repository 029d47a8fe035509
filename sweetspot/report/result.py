"""StudyResult: what a study has found, as values. (The JSON of it: :mod:`sweetspot.report.result_json`.)"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import StudyConfig
from sweetspot.errors import UserError
from sweetspot.report.companion import Stage, stage_of
from sweetspot.report.curves import TeacherCurve, read_curves
from sweetspot.report.points import PointSummary, summaries
from sweetspot.store import Store, StudyRecord, WorkerRecord
from sweetspot.study.arms import ECONOMY
from sweetspot.study.choices import cheapest
from sweetspot.study.conclusion import Confirmation, confirmation, cost_ratio, left_out
from sweetspot.study.confirmation import NEEDED, Plan, current_plan, failed_arms, has_plan, is_current
from sweetspot.study.equal_steps import EqualSteps, equal_steps
from sweetspot.study.ranking import Ranked, ranking, teacher_at
from sweetspot.study.search import CONFIRM, TASK, Counts, companions, get_study, is_given_back, load
from sweetspot.study.space import ExternalPoint, Point, point_of
from sweetspot.training.schedules import schedule

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

_STALE = (
    "out of date: the study has gone on since this confirmation, and another would compare other arms; the same "
    "command as before runs it"
)


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
    """A confirmation was made, or begun, and another would compare other arms by now."""
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
    plan: Plan | None = None
    """Of the latest confirmation, whatever it was of."""
    cheapest: Ranked | None = None
    """The point with the cheapest teacher of those that are as good as the best, as far as is known."""
    cost_ratio: float | None = None
    """Seconds to train that teacher, as a share of those of the best point's."""
    left_out: tuple[str, ...] = ()
    """The entries of ``[confirm] arms`` that this study leaves out."""
    test_looks: int = 0
    """Looks that the test split of its data has had, by all studies of the database."""
    is_of_earlier_version: bool = False
    """A confirmation was planned by an earlier version: it is planned anew when the study is continued."""
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
    def confirmed(self) -> bool | None:
        """Whether the best point is; None where that is undecided, or not known (any more)."""
        return None if self.confirmation is None or self.is_stale else self.confirmation.verdict.confirmed

    @cached_property
    def stage(self) -> Stage | None:
        """Of the tasks that are trained beside the search."""
        return stage_of(self.config, self.plan, self.confirming)

    @cached_property
    def equal_steps(self) -> EqualSteps | None:
        """Whether batch size matters at equal steps; None where too little was visited to tell."""
        return equal_steps(self.ranked, self.config.confirm.margin)

    @property
    def epochs_mean(self) -> str:
        """What "a teacher of n epochs" is in this study: "truncated" or "annealed"."""
        return schedule(self.config.teacher.schedule, self.config.search.ladder[0]).epochs_mean

    def to_dict(self) -> dict[str, Any]:
        """What ``sweetspot best --json`` prints.

        Raises:
            RunError: if no trial has finished.
        """
        from sweetspot.report.result_json import best_dict

        return best_dict(self)

    def trials_dict(self) -> dict[str, int]:
        """How many trials of each kind there are, as JSON has it."""
        from sweetspot.report.result_json import trials_dict

        return trials_dict(self)

    def cost_dict(self) -> dict[str, Any]:
        """The cost, as JSON has it."""
        from sweetspot.report.result_json import cost_dict

        return cost_dict(self)

    def status_dict(self) -> dict[str, Any]:
        """One entry of what ``sweetspot status --json`` prints."""
        from sweetspot.report.result_json import status_dict

        return status_dict(self)

    def trials_list(self) -> list[dict[str, Any]]:
        """What ``sweetspot trials --json`` prints: the trials in order, those given back left out."""
        from sweetspot.report.result_json import trials_list

        return trials_list(self)

    @property
    def verdict(self) -> str:
        """In words, what the confirmation found; or why there is none."""
        return " ".join(self.verdict_sentences)

    @property
    def verdict_sentences(self) -> tuple[str, ...]:
        """The verdict, then what it rests on and what it is not about."""
        if self.confirmation is None:
            return (self._why_not_confirmed,)
        first, *others = self.confirmation.verdict.sentences
        return (f"{_STALE}; it said: {first}" if self.is_stale else first, *others)

    @property
    def _why_not_confirmed(self) -> str:
        if self.failed_arm is not None:
            return f"not confirmed: the confirmation failed at {self.failed_arm}"
        is_of_best = self.plan is not None and self.best is not None and self.plan.best == self.best.point
        if self.is_stale and not is_of_best:
            return "not confirmed yet: the search has found another best point since the last confirmation"
        if self.config.search.teacher.seeds is not None:
            return "not confirmed: this is a table of every point and every teacher, not a search"
        if self.best is not None and self.best.is_under_trained:
            return (
                f"not confirmed: every point has fewer than search.min_steps = {self.config.search.min_steps} teacher "
                "steps, so that none can be the sweet spot; search longer teachers"
            )
        if self.config.confirm.seeds == 0:
            return "not confirmed: the confirmation was left out; run the same command without --no-confirm"
        if is_of_best:
            return "not confirmed yet: a confirmation was begun and is not complete; the same command goes on with it"
        if self.is_of_earlier_version:
            return "not confirmed: the confirmation was made by an earlier version; the same command makes another"
        return "not confirmed yet: the best point so far, by validation accuracy"

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
    plan = current_plan(store, record.name)
    confirmed = confirmation(store, record, ranked) if plan is not None and with_confirmation else None
    is_of_best = plan is not None and bool(ranked) and ranked[0].point == plan.best
    is_stale = (
        with_confirmation
        and plan is not None
        and not (is_of_best and _is_current(store, record, plan, _has_gone_on(record, plan, trials, confirming)))
    )
    as_good = _cheapest(store, record, ranked, plan if is_of_best else None) if ranked and with_confirmation else None
    return StudyResult(
        record=record,
        trials=trials,
        ranked=tuple(ranked),
        confirmation=confirmed if is_of_best else None,
        is_stale=is_stale,
        failed_arm=_failed(store, record, plan) if plan is not None and with_confirmation and not confirmed else None,
        cost=Cost.of(trials, confirming),
        best_measures=_best_measures(store, record, ranked),
        workers=tuple(w for w in store.workers.of_study(record.name) if not w.ended),
        confirming=tuple(confirming),
        train_images=images,
        classes=tuple(attrs.get("classes", ())),
        plan=plan,
        cheapest=as_good,
        cost_ratio=cost_ratio(store, record, as_good.point, ranked[0].point) if as_good is not None else None,
        left_out=left_out(store, record),
        test_looks=store.studies.test_looks(record.data_hash),
        is_of_earlier_version=plan is None and has_plan(store, record.name),
        curves=_curves(store, record, ranked, trials, images) if with_curves and images else (),
    )


def read_results(store: Store) -> list[StudyResult]:
    """The results of all studies, by creation."""
    return [read_result(store, record.name) for record in store.studies.all()]


def _curves(
    store: Store, record: StudyRecord, ranked: Sequence[Ranked], trials: Sequence[FrozenTrial], images: int
) -> tuple[TeacherCurve, ...]:
    visited = [point for trial in trials if (point := point_of(trial)) is not None]
    return read_curves(store, record, [*(each.point for each in ranked), *visited], images)


def _best_measures(store: Store, record: StudyRecord, ranked: Sequence[Ranked]) -> dict[str, float | None]:
    names = ("similarity_entropy", "similarity_information", "delivered_similarity")
    if not ranked or (measured := teacher_at(store, record, ranked[0].point)) is None:
        return dict.fromkeys(("teacher_accuracy", *names))
    views = measured["train"].values
    return {"teacher_accuracy": measured["validation"].values["accuracy"], **{name: views[name] for name in names}}


def _has_gone_on(
    record: StudyRecord, plan: Plan, trials: Sequence[FrozenTrial], confirming: Sequence[FrozenTrial]
) -> bool:
    """Whether the search has found anything since a plan was made."""
    planned = {task.to_json() for task in plan.all_tasks(record.config.teacher.seed)}
    begun = [t.datetime_start for t in confirming if t.user_attrs.get(TASK) in planned and t.datetime_start]
    ended = [t.datetime_complete for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    return not begun or any(end is not None and end > min(begun) for end in ended)


def _is_current(store: Store, record: StudyRecord, plan: Plan, has_gone_on: bool) -> bool:
    """Whether the next confirmation would compare what ``plan`` does, however many seeds it had."""
    yours = {source.weights for source in plan.arms.values() if isinstance(source, ExternalPoint)}
    there = {t.weights for t in store.external_teachers.of_data(record.data_hash)}
    if not has_gone_on and ("your_teacher" not in record.config.confirm.arms or yours == there):
        return True
    confirm = record.config.confirm.model_copy(update={"seeds": plan.seeds, "teachers": plan.teachers})
    return is_current(store, replace(record, config=record.config.model_copy(update={"confirm": confirm})), plan)


def _failed(store: Store, record: StudyRecord, plan: Plan) -> str | None:
    """Which arm that is needed failed for good, and why."""
    return next((f"{arm}: {why}" for arm, why in failed_arms(store, record, plan).items() if arm in NEEDED), None)


def _cheapest(store: Store, record: StudyRecord, ranked: list[Ranked], plan: Plan | None) -> Ranked | None:
    """Of ``plan``, or by the ranking; None where the best point is under-trained."""
    if ranked[0].is_under_trained:
        return None
    planned = plan.arms.get(ECONOMY) if plan is not None else None
    point = planned if isinstance(planned, Point) else cheapest(store, record, ranked)
    return next((each for each in ranked if each.point == point), None)
