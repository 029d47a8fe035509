"""The audit after chaos: what must hold at the end, each property a function that says what does not."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import isclose
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select

from benchmarks.watched_worker import Event, Worker
from sweetspot.config import StudyConfig
from sweetspot.store import Store
from sweetspot.store.artifacts import DamagedBlobError
from sweetspot.store.checkpoints import used_blobs
from sweetspot.store.schema import EpochRow, LeaseRow, SnapshotRow, StudentRow
from sweetspot.store.trajectories import TRUNK, run_of
from sweetspot.study.confirmation import current_plan
from sweetspot.study.search import CONFIRM, GIVEN_BACK, TASK, companions, load
from sweetspot.study.space import Point
from sweetspot.study.visit import distillation_at, recipe_at

DRAIN_SECONDS = 30.0
"""Within so long a worker that is asked to stop has ended."""
_OUTAGE_ENDS_SECONDS = 10.0
"""So long after an outage what was held meanwhile may still not be delivered."""
_TIMED = {"seconds", "created", "used", "id"}
_MEASURED = ("similarity_entropy", "similarity_information", "teacher_accuracy", "steps", "replicate_accuracies")

Results = dict[str, dict[Any, Any]]


@dataclass(frozen=True)
class Finding:
    """A property that does not hold, and how that shows."""

    prop: str
    message: str


@dataclass
class Disturbance:
    """What was done to a study.

    Attributes:
        workers: all that were started.
        drained: with the seconds from the request to the end.
        outages: of the database, from and until, by the monotonic clock.
        damaged: names of blobs, with the run of a teacher or student that they are of ("" if it is none's any more).
        notes: that were seen lying there.
    """

    workers: list[Worker] = field(default_factory=list)
    killed: list[Worker] = field(default_factory=list)
    stopped: list[Worker] = field(default_factory=list)
    drained: list[tuple[Worker, float]] = field(default_factory=list)
    ended_of_itself: list[Worker] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    notes: int = 0


def results(store: Store, name: str) -> Results:
    """All that a study has found, to the bit, by what it is of: without times, and without who found it."""
    with store.database.session() as session:
        found: Results = {
            "measurements": {
                (row.recipe, row.branch, row.epoch, row.temperature, row.probe): _columns(row)
                for row in session.scalars(select(EpochRow))
            },
            "snapshots": {
                (row.recipe, row.branch, row.epoch): (row.weights, row.build)
                for row in session.scalars(select(SnapshotRow))
            },
            "students": {
                (row.distillation, row.purpose, row.replicate, row.test_hash): _columns(row)
                for row in session.scalars(select(StudentRow))
            },
        }
    found["trials"] = {
        _params(t): (t.state.name, t.value, t.intermediate_values, {k: t.user_attrs.get(k) for k in _MEASURED})
        for t in finished(store, name)
    }
    plan = current_plan(store, name)
    found["arms"] = {"plan": {arm: source.params for arm, source in plan.arms.items()} if plan else None}
    if plan is not None:
        found["arms"] |= {
            t.user_attrs[TASK]: (t.value, t.user_attrs.get("replicate_accuracies"))
            for t in finished(store, name + CONFIRM)
        }
    return found


def _columns(row: Any) -> dict[str, Any]:
    return {c.name: getattr(row, c.name) for c in row.__table__.columns if c.name not in _TIMED}


def _params(trial: FrozenTrial) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(trial.params.items()))


def finished(store: Store, name: str) -> list[FrozenTrial]:
    """Complete and pruned trials, by number."""
    return load(store, name).get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


# -- the properties ---------------------------------------------------------------------------------------------------


def each_point_was_finished_once(store: Store, name: str, config: StudyConfig) -> list[str]:
    """Exactly N finished trials, each with a result, and no trial at a point where another has finished."""
    done = finished(store, name)
    wrong = [] if len(done) == config.search.trials else [f"{len(done)} of {config.search.trials} trials are finished"]
    times = Counter(_params(trial) for trial in done)
    wrong += [f"{point} was finished {n} times" for point, n in times.items() if n > 1]
    wrong += [f"trial {t.number} is finished without a value" for t in done if t.value is None]
    return wrong


def no_trial_is_under_way(store: Store, name: str) -> list[str]:
    """Nor waits, in the search or the confirmation; whatever failed was given back, and no point is called poison."""
    wrong = []
    for each in (name, *companions(store, name)):
        for trial in load(store, each).get_trials(deepcopy=False):
            is_over = trial.state.is_finished()
            is_lost = trial.state == TrialState.FAIL and GIVEN_BACK not in trial.user_attrs
            why = {key: trial.user_attrs[key] for key in ("infeasible", "error") if key in trial.user_attrs}
            if not is_over or is_lost or why:
                wrong.append(f"trial {trial.number} of {each} ({trial.params}) is {trial.state.name} {why}")
    return wrong


def values_are_the_means_of_students(store: Store, name: str, config: StudyConfig, data_hash: str) -> list[str]:
    wrong = []
    for trial in finished(store, name):
        distillation = distillation_at(config, data_hash, Point.of(trial.params)).hash
        students = [s.accuracy for s in store.students.of([distillation], "search").get(distillation, [])]
        if len(students) != config.student.replicates.max:
            wrong.append(f"trial {trial.number} has {len(students)} students")
        elif trial.value is None or not isclose(trial.value, sum(students) / len(students), rel_tol=1e-12):
            wrong.append(f"the value {trial.value} of trial {trial.number} is not the mean of {students}")
    return wrong


def results_are_those_of_an_undisturbed_study(found: Results, expected: Results) -> list[str]:
    """To the bit: measurements, weights (by the hash of their bytes), students, trials, the confirmation."""
    wrong = []
    for what in expected:
        for key in sorted(expected[what].keys() | found[what].keys(), key=str):
            there, here = expected[what].get(key, "nothing"), found[what].get(key, "nothing")
            if there != here:
                wrong.append(f"{what} {key}: {here} instead of {there}")
    return wrong


def nothing_is_held(store: Store) -> list[str]:
    """No lease has an owner, no run that is over a checkpoint, and nobody has left anything undelivered."""
    with store.database.session() as session:
        leases = [(row.name, row.owner) for row in session.scalars(select(LeaseRow)) if row.owner]
    ended = store.workers.ended({owner for _, owner in leases})
    wrong = [f"lease {name[:60]} is held by {owner} (dead: {owner in ended})" for name, owner in leases]
    wrong += [f"checkpoint of {c.run} at {c.position}" for c in store.trajectories.checkpoints()]
    return wrong + [f"note {note}" for note in store.artifacts.notes("")]


def blobs_are_whole(store: Store, damaged: set[str]) -> list[str]:
    """All that rows refer to, but those that were damaged and that nobody has needed since."""
    with store.database.session() as session:
        names = used_blobs(session)
    wrong = []
    for name in sorted(names - damaged):
        try:
            store.artifacts.get(name)
        except DamagedBlobError as error:
            wrong.append(str(error))
    return wrong


def workers_ended_as_they_should(disturbance: Disturbance) -> list[str]:
    """Those that were drained in time and with exit status 0, like those that ended by themselves; none crashed."""
    wrong = []
    for worker, seconds in disturbance.drained:
        if worker.status != 0:
            wrong.append(f"worker {worker.pid} was drained and ended with {worker.status}: {worker.said}")
        if seconds > DRAIN_SECONDS:
            wrong.append(f"worker {worker.pid} took {seconds:.0f} s to drain")
    for worker in disturbance.ended_of_itself:
        if worker.status != 0:
            wrong += [f"worker {worker.pid} ended with {worker.status}: {worker.said}"]
    for worker in disturbance.workers:
        if "Traceback" in worker.said:
            wrong += [f"worker {worker.pid} said {worker.said}"]
    return wrong


# -- what was trained again -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """Steps of a teacher that a worker has trained in vain: it ended, or its lease did, before they were saved.

    Attributes:
        at: of each step, by the monotonic clock.
    """

    worker: Worker
    run: str
    at: list[float]


@dataclass(frozen=True)
class Training:
    """Of teachers, in steps.

    Attributes:
        again: trained although they had been trained before.
        epochs_again: the same in epochs.
        most: the furthest step of each run.
    """

    trained: int
    again: int
    epochs_trained: float
    epochs_again: float
    lost: list[Loss]
    most: dict[str, int]
    per_epoch: dict[str, int]


def training(store: Store, config: StudyConfig, data_hash: str, images: int, workers: Sequence[Worker]) -> Training:
    """What workers have written down, step by step. For a schedule whose runs share all (no decay branches)."""
    per_epoch = {}
    for batch_size in config.search.batch_size:
        point = Point(batch_size, config.search.ladder[0])
        per_epoch[run_of(recipe_at(config, data_hash, point).hash, TRUNK)] = images // batch_size
    times: Counter[tuple[str, int]] = Counter()
    lost = []
    for worker in workers:
        events = [event for event in worker.events if event.is_of_teacher]
        for run, group in groupby(events, key=lambda event: event.run):
            lost += _lost(worker, run, list(group), per_epoch[run], times)
    again = Counter({run: sum(n - 1 for (r, _), n in times.items() if r == run) for run in per_epoch})
    total = Counter({run: sum(n for (r, _), n in times.items() if r == run) for run in per_epoch})
    most = {run: max((step for r, step in times if r == run), default=0) for run in per_epoch}
    return Training(
        total.total(),
        again.total(),
        sum(total[run] / per_epoch[run] for run in per_epoch),
        sum(again[run] / per_epoch[run] for run in per_epoch),
        lost,
        most,
        per_epoch,
    )


def _lost(worker: Worker, run: str, events: list[Event], steps: int, times: Counter[tuple[str, int]]) -> list[Loss]:
    """What one worker has lost of a run, that it began perhaps more than once; counts its steps in ``times``."""
    lost: list[Loss] = []
    last: int | None = None
    unsaved: list[tuple[int, float]] = []
    for event in events:
        step = event.place[0] * steps + event.place[1]
        if event.what == "saved":
            unsaved = [(s, at) for s, at in unsaved if s > step]
        elif event.what == "step":
            if last is not None and step != last + 1 and unsaved:  # it begins again elsewhere
                lost.append(Loss(worker, run, [at for _, at in unsaved]))
                unsaved = []
            last = step
            unsaved.append((step, event.at))
            times[run, step] += 1
    return [*lost, Loss(worker, run, [at for _, at in unsaved])] if unsaved else lost


def little_was_trained_again(trained: Training, disturbance: Disturbance, checkpoint_seconds: float) -> list[str]:
    """Teacher epochs trained again <= kills x checkpoint interval, and what damaged blobs cost.

    A step is trained again for one of two reasons. Whoever trained it was ended before it was saved: those steps are
    counted, worker by worker, and there are at most as many such losses as workers were killed, stopped (and taken
    over) or drained in an outage; each lies within one checkpoint interval of the worker's own clock, the last step
    excepted, during which the checkpoint fell due. In an outage nothing can be saved, and as much longer it may be.
    Or it was saved, and a blob was damaged: then its run is trained again from the last place before, at worst from its
    beginning, and once: what is trained again is saved under the lease as before.
    """
    wrong = []
    lost = sum(len(loss.at) for loss in trained.lost)
    again_for_blobs = sum(trained.most.get(run, 0) for _, run in disturbance.damaged)
    if trained.again > lost + again_for_blobs:
        wrong.append(
            f"{trained.again} steps were trained again: {lost} had been lost, and damaged blobs account for at most "
            f"{again_for_blobs}"
        )
    causes = len(disturbance.killed) + len(disturbance.stopped) + len(disturbance.drained)
    if len(trained.lost) > causes:
        losers = [loss.worker.pid for loss in trained.lost]
        wrong.append(f"{len(losers)} times what a worker had trained was lost, {causes} faults can cost that: {losers}")
    damaged = {run for _, run in disturbance.damaged}
    for loss in trained.lost:
        *but_last, _ = loss.at
        outlasts = sum(
            until - began + _OUTAGE_ENDS_SECONDS
            for began, until in disturbance.outages
            if began < loss.at[-1] and until + _OUTAGE_ENDS_SECONDS > loss.at[0]
        )
        # A run that is trained again after damage is not saved before it has passed the checkpoint that is there.
        if but_last and loss.run not in damaged and but_last[-1] - but_last[0] > checkpoint_seconds + outlasts:
            wrong.append(
                f"worker {loss.worker.pid} trained {but_last[-1] - but_last[0]:.2f} s of {loss.run[:30]} without saving"
            )
    return wrong


def audit(
    store: Store, name: str, config: StudyConfig, images: int, expected: Results, disturbance: Disturbance
) -> tuple[dict[str, Any], list[Finding]]:
    """Everything above: a summary in numbers, and what does not hold."""
    record = store.studies.get(name)
    assert record is not None
    trained = training(store, config, record.data_hash, images, disturbance.workers)
    damaged = {blob for blob, _ in disturbance.damaged}
    found = results(store, name)
    checks: dict[str, Callable[[], list[str]]] = {
        "each point finished once": lambda: each_point_was_finished_once(store, name, config),
        "no trial under way": lambda: no_trial_is_under_way(store, name),
        "values are means": lambda: values_are_the_means_of_students(store, name, config, record.data_hash),
        "results as undisturbed": lambda: results_are_those_of_an_undisturbed_study(found, expected),
        "nothing held": lambda: nothing_is_held(store),
        "blobs whole": lambda: blobs_are_whole(store, damaged),
        "workers ended well": lambda: workers_ended_as_they_should(disturbance),
        "little trained again": lambda: little_was_trained_again(trained, disturbance, config.run.checkpoint_seconds),
    }
    findings = [Finding(prop, message) for prop, check in checks.items() for message in check()]
    trials = [t for each in (name, *companions(store, name)) for t in load(store, each).get_trials(deepcopy=False)]
    lost = sum(len(loss.at) / trained.per_epoch[loss.run] for loss in trained.lost)
    damage = sum(trained.most.get(run, 0) / trained.per_epoch.get(run, 1) for _, run in disturbance.damaged)
    summary = {
        "finished_trials": len(finished(store, name)),
        "trials_given_back": sum(GIVEN_BACK in t.user_attrs for t in trials),
        "workers_started": len(disturbance.workers),
        "workers_killed": len(disturbance.killed),
        "workers_stopped": len(disturbance.stopped),
        "workers_drained": len(disturbance.drained),
        "slowest_drain_seconds": round(max((seconds for _, seconds in disturbance.drained), default=0.0), 1),
        "outages": len(disturbance.outages),
        "longest_outage_seconds": round(max((until - b for b, until in disturbance.outages), default=0.0), 1),
        "notes_left_behind": disturbance.notes,
        "blobs_damaged": len(disturbance.damaged),
        "teacher_epochs_trained": round(trained.epochs_trained, 2),
        "teacher_epochs_trained_again": round(trained.epochs_again, 2),
        "teacher_epochs_lost_by_workers": round(lost, 2),
        "teacher_epochs_that_damage_may_cost": round(damage, 2),
    }
    return summary, findings
