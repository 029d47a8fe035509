"""What the store saves: one study with it and without it, in the same run, and once more in the storage it left.

``python -m benchmarks.reuse --dataset digits|fashion_mnist [--data DIR] [--trials N] [--set PATH=VALUE]
[--json FILE]``

One worker in this process, so that a search repeats exactly, goes three times through a search and its confirmation:

- **with the store**, as always, in a new storage;
- **without it**, in another new storage: before every trial, those of the confirmation included, all that earlier
  trials have left of teachers is removed (weights, optimisers, checkpoints; not the measurements, which any program
  keeps), so that each trial trains its teacher from the first epoch. A teacher that is trained again is the same bit
  for bit, so that both visit the same points, prune alike, and end with the same recommendation, which is checked;
- **again**: the same study under another name, in the storage of the first.

Teacher epochs are counted and repeat exactly. Times are of this machine and of whatever ran beside: where something
did, the wall seconds say little, and the CPU seconds of this process more. Without the store, too, every epoch is
measured. The bound on the epochs trained with the store, for any number of trials, is batch sizes x
longest; where runs share a trunk and have branches of their own (wsd), the trunk to its last branch point and each
branch once, which is no more than batch sizes x longest plus each of the other branches.
"""

import argparse
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from benchmarks.evidence import evidence, write
from benchmarks.watch import Beside, Watch
from sweetspot.config import StudyConfig
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.errors import UserError
from sweetspot.report.result import StudyResult, read_result
from sweetspot.store import Store
from sweetspot.store.trajectories import RUNS, TrajectoryStore
from sweetspot.store.url import data_folder
from sweetspot.study.claim import Job
from sweetspot.study.jobs import Confirming, Search
from sweetspot.study.search import CONFIRM, companions, create_or_continue, load
from sweetspot.study.space import Point
from sweetspot.study.visit import recipe_at
from sweetspot.study.workplace import Workplace, registered, resolved
from sweetspot.study_file import draft_for
from sweetspot.training.device import prepare
from sweetspot.workers.worker import search_and_confirm

_DEVICE = "cpu"
_IDLE_CORES = 0.05
"""So much of one core is always taken."""

_RECOMMENDATION = (
    "batch_size",
    "epochs",
    "accuracy",
    "test_accuracy",
    "teacher_accuracy",
    "baselines",
    "gain",
    "verdict",
)
"""What :meth:`StudyResult.to_dict` says that a user goes by."""


@dataclass(frozen=True)
class Spent:
    """What some trials have cost.

    Attributes:
        teacher_epochs_trained, student_epochs: counted.
        teacher_epochs_requested: what the trials would have trained each on its own.
        teacher_seconds, measuring_seconds, student_seconds: as the trials noted them.
    """

    teacher_epochs_trained: int
    teacher_epochs_requested: int
    student_epochs: int
    teacher_seconds: float
    measuring_seconds: float
    student_seconds: float

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial]) -> "Spent":
        noted = [t.user_attrs for t in trials]

        def epochs(key: str) -> int:
            return int(sum(attrs.get(key, 0) for attrs in noted))

        def seconds(phase: str) -> float:
            return round(float(sum(attrs.get("seconds", {}).get(phase, 0.0) for attrs in noted)), 1)

        return cls(
            epochs("epochs_trained"),
            epochs("epochs_reached"),
            epochs("student_epochs"),
            seconds("teacher"),
            seconds("measuring"),
            seconds("students"),
        )


@dataclass(frozen=True)
class Part:
    """One of the three goes.

    Attributes:
        wall_seconds, cpu_seconds: from the first claim to the end of the confirmation; the removing is not counted.
        trials: what became of each of the search: its parameters, state, value and students.
    """

    search: Spent
    confirmation: Spent
    wall_seconds: float
    cpu_seconds: float
    trials: list[tuple[dict[str, Any], str, float | None, list[float]]]
    recommendation: Mapping[str, Any]

    @property
    def trained(self) -> int:
        """Teacher epochs."""
        return self.search.teacher_epochs_trained + self.confirmation.teacher_epochs_trained

    @property
    def requested(self) -> int:
        """Teacher epochs."""
        return self.search.teacher_epochs_requested + self.confirmation.teacher_epochs_requested

    @property
    def teacher_seconds(self) -> float:
        """Training and measuring."""
        spent = (self.search, self.confirmation)
        return sum(s.teacher_seconds + s.measuring_seconds for s in spent)

    def to_dict(self) -> dict[str, Any]:
        return {
            "teacher_epochs_trained": self.trained,
            "teacher_epochs_requested": self.requested,
            "wall_seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
            "search": asdict(self.search),
            "confirmation": asdict(self.confirmation),
        }


@dataclass
class Forgetful:
    """A job whose trials find nothing of the teachers that earlier ones have trained.

    Attributes:
        watch: stands still while they are removed.
    """

    job: Job
    store: TrajectoryStore
    watch: Watch

    @property
    def study(self) -> optuna.Study:
        return self.job.study

    @property
    def parameters(self) -> Collection[str]:
        return self.job.parameters

    @property
    def pruner(self) -> BasePruner:
        return self.job.pruner

    def sampler(self, trials: list[FrozenTrial]) -> BaseSampler:
        return self.job.sampler(trials)

    def wants_trial(self, trials: list[FrozenTrial]) -> bool:
        return self.job.wants_trial(trials)

    def saved(self, trial: FrozenTrial) -> str:
        return self.job.saved(trial)

    def suggest(self, trial: optuna.Trial) -> Any:
        return self.job.suggest(trial)

    def run(self, trial: optuna.Trial, suggested: Any) -> float:
        with self.watch.stopped():
            forget_teachers(self.store)
        return self.job.run(trial, suggested)


def forget_teachers(store: TrajectoryStore) -> None:
    """Remove every snapshot and checkpoint of a teacher. Measurements stay: they are still true."""
    for recipe in store.recipes():
        for snapshot in store.of_recipe(recipe):
            store.drop(snapshot)
    for checkpoint in store.checkpoints():
        if checkpoint.run.startswith(RUNS):
            store.drop_checkpoint(checkpoint.run)


def bound(config: StudyConfig, data_hash: str) -> int:
    """The most teacher epochs that a study trains with the store, however many trials it has.

    Raises:
        UserError: if the teachers differ in more than batch size and epochs.
    """
    if config.search.teacher.lr is not None or config.search.teacher.model is not None:
        raise UserError("the bound is for one teacher per batch size: search neither teacher.lr nor teacher.model")
    total, ladder = 0, config.search.ladder
    for batch_size in config.search.batch_size:
        schedule = recipe_at(config, data_hash, Point(batch_size, ladder[0])).schedule
        shared = {epochs: schedule.shared_epochs(epochs) for epochs in ladder}
        total += max(shared.values()) + sum(epochs - shared[epochs] for epochs in ladder)
    return total


def go(name: str, config: StudyConfig, data: StudyData, store: Store, *, keep: bool) -> Part:
    """Search and confirm with one worker.

    Args:
        keep: whether trials find the teachers of earlier ones.
    """
    record = create_or_continue(store, name, config, data)
    with registered(store, _DEVICE, config.run) as leases:
        workplace = Workplace(name, store, leases, data, prepare(_DEVICE, config.run))
        search, confirming = Search(record, workplace), Confirming(record, workplace)
        watch = Watch()
        if keep:
            search_and_confirm(search, confirming, workplace)
        else:
            teachers = store.trajectories
            search_and_confirm(Forgetful(search, teachers, watch), Forgetful(confirming, teachers, watch), workplace)
        wall, cpu = watch.read()
    result = read_result(store, name)
    confirming_trials = load(store, name + CONFIRM).get_trials(deepcopy=False) if companions(store, name) else []
    return Part(
        Spent.of(result.trials),
        Spent.of(confirming_trials),
        round(wall, 1),
        round(cpu, 1),
        [_became(trial) for trial in result.trials],
        _recommendation(result),
    )


def _became(trial: FrozenTrial) -> tuple[dict[str, Any], str, float | None, list[float]]:
    value = trial.value if trial.state == TrialState.COMPLETE else None
    return trial.params, trial.state.name.lower(), value, trial.user_attrs.get("replicate_accuracies", [])


def _recommendation(result: StudyResult) -> dict[str, Any]:
    said = result.to_dict()
    return {key: said[key] for key in _RECOMMENDATION}


@dataclass(frozen=True)
class Comparison:
    """One study with the store, without it, and again."""

    bound: int
    stored: Part
    bare: Part
    again: Part

    @property
    def is_same(self) -> bool:
        """Whether all three made the same trials, with the same students, and recommend the same in the same words."""
        parts = (self.bare, self.again)
        return all((p.trials, p.recommendation) == (self.stored.trials, self.stored.recommendation) for p in parts)

    def to_dict(self) -> dict[str, Any]:
        stored, bare, again = self.stored, self.bare, self.again
        return {
            "teacher_epochs_bound": self.bound,
            "with_store": stored.to_dict(),
            "without_store": bare.to_dict(),
            "again_with_store": again.to_dict(),
            "ratios": {
                "teacher_epochs": round(stored.trained / bare.trained, 4),
                "teacher_seconds": round(stored.teacher_seconds / bare.teacher_seconds, 4),
                "wall_seconds": round(stored.wall_seconds / bare.wall_seconds, 4),
                "cpu_seconds": round(stored.cpu_seconds / bare.cpu_seconds, 4),
                "teacher_epochs_again": round(again.trained / stored.trained, 4),
                "wall_seconds_again": round(again.wall_seconds / stored.wall_seconds, 4),
            },
            "same_trials_and_recommendation": self.is_same,
            "recommendation": stored.recommendation,
        }


def compare(config: StudyConfig, data: StudyData, folder: Path) -> Comparison:
    """The three goes, in new storages in a folder.

    Args:
        config: with every "auto" resolved.
    """
    most = bound(config, data.hash)
    with _new_store(folder / "stored", config) as store:
        stored = go("first", config, data, store, keep=True)
        again = go("again", config, data, store, keep=True)
    with _new_store(folder / "bare", config) as store:
        bare = go("first", config, data, store, keep=False)
    return Comparison(most, stored, bare, again)


def _new_store(folder: Path, config: StudyConfig) -> Store:
    folder.mkdir()
    return Store(f"sqlite:///{folder}/study.db", str(folder / "artifacts"), config.run)


def table(found: Comparison) -> str:
    """The three goes, a line each, for people."""
    lines = [f"{'':<14} {'teacher epochs':>14} {'asked for':>10} {'teachers':>10} {'wall':>9} {'CPU':>9}"]
    for name, part in (("with store", found.stored), ("without", found.bare), ("again", found.again)):
        epochs = f"{part.trained:>14,} {part.requested:>10,}"
        seconds = f"{part.teacher_seconds:>8,.1f} s {part.wall_seconds:>7,.1f} s {part.cpu_seconds:>7,.1f} s"
        lines.append(f"{name:<14} {epochs} {seconds}")
    best = found.stored.recommendation
    lines += [
        f"bound: {found.bound:,} teacher epochs; same trials, students and recommendation: {found.is_same}",
        f"best point {best['batch_size']} x {best['epochs']}; {best['verdict']}",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.reuse", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dataset", required=True, metavar="NAME", help="data set, with its built-in study")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data sets that are downloaded")
    parser.add_argument("--trials", type=int, metavar="N", help="of the search (the study's)")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="any field of the study file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draft = draft_for(given.dataset, None)
    if given.trials:
        draft.set("search.trials", given.trials, "--trials")
    for assignment in given.set:
        draft.assign(assignment)
    config = resolved(draft.config(), _DEVICE)
    data = load_study_data(config, given.data or data_folder(), prepare(_DEVICE, config.run))
    beside = Beside()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(config, data, Path(folder))
    cores = beside.cores()
    print(table(found))
    if given.json:
        made_by = evidence("benchmarks.reuse", arguments)
        disturbed = {"other_work_ran_beside": cores >= _IDLE_CORES, "cores_busy_with_other_work": cores}
        write(
            given.json, {"benchmark": "reuse", **made_by, **disturbed, "study": _described(config), **found.to_dict()}
        )


def _described(config: StudyConfig) -> dict[str, Any]:
    return {
        "dataset": config.data.dataset,
        "teacher": config.teacher.model,
        "student": config.student.model,
        "schedule": config.teacher.schedule.name,
        "batch_sizes": config.search.batch_size,
        "ladder": config.search.ladder,
        "trials": config.search.trials,
        "students_per_trial": config.student.replicates.max,
        "student_epochs": config.student.epochs,
        "confirm_seeds": config.confirm.seeds,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
