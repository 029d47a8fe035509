from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from tiny_study import tiny_config

import sweetspot
from sweetspot.config import StudyConfig
from sweetspot.store import LostLeaseError, Student
from sweetspot.store.outage import DatabaseDownError
from sweetspot.study.findings import Findings
from sweetspot.study.objective import Objective
from sweetspot.study.sampler import Taken
from sweetspot.study.space import TEACHER_SEED, Point, distributions
from sweetspot.study.visit import Visit, distillation_at
from sweetspot.study.workplace import Workplace
from sweetspot.training.engine import memory_errors
from sweetspot.training.resume import StoppedError


def run(config: StudyConfig, workplace: Workplace, *points: Point, study: optuna.Study | None = None) -> optuna.Study:
    study = study or optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    objective = Objective(config, workplace=workplace)
    for point in points:
        study.enqueue_trial(point.params)
        study.optimize(objective, n_trials=1)
    return study


def test_a_trials_value_is_the_mean_validation_accuracy_of_its_students(workplace: Workplace) -> None:
    trial = run(tiny_config(), workplace, Point(64, 3)).trials[0]
    attrs = trial.user_attrs
    assert trial.value == pytest.approx(sum(attrs["replicate_accuracies"]) / 2)
    assert len(attrs["replicate_accuracies"]) == 2
    assert attrs["epochs_trained"] == 3
    assert attrs["epochs_reused"] == 0
    assert attrs["student_epochs"] == 4
    assert attrs["steps"] == 3 * (1097 // 64)
    assert 0.5 < attrs["teacher_accuracy"] <= 1
    assert attrs["device"] == "cpu"
    assert {"teacher", "measuring", "waiting", "students"} == attrs["seconds"].keys()
    rows = workplace.store.students.of(
        [distillation_at(tiny_config(), workplace.data.hash, Point(64, 3)).hash], "search"
    )
    assert [s.accuracy for (students,) in [rows.values()] for s in students] == attrs["replicate_accuracies"]


def test_similarity_entropy_is_reported_at_every_rung_up_to_the_trials_own_epochs(workplace: Workplace) -> None:
    trial = run(tiny_config(), workplace, Point(64, 3)).trials[0]
    assert list(trial.intermediate_values) == [1, 2, 3]
    assert trial.intermediate_values[3] == trial.user_attrs["similarity_entropy"]


def test_a_second_trial_on_the_recipe_continues_the_first_ones_teacher(workplace: Workplace) -> None:
    study = run(tiny_config(), workplace, Point(64, 2), Point(64, 3), Point(64, 1))
    costs = [(t.user_attrs["epochs_trained"], t.user_attrs["epochs_reused"]) for t in study.trials]
    assert costs == [(2, 0), (1, 2), (0, 1)]


def test_a_point_in_the_database_is_answered_from_it(workplace: Workplace) -> None:
    first = run(tiny_config(), workplace, Point(64, 2)).trials[0]
    again = run(tiny_config(), workplace, Point(64, 2)).trials[0]
    assert again.value == first.value
    assert (again.user_attrs["epochs_trained"], again.user_attrs["student_epochs"]) == (0, 0)


def test_asking_for_a_point_again_buys_it_more_replicates(workplace: Workplace) -> None:
    study = run(tiny_config(), workplace, Point(64, 2), Point(64, 2))
    first, second = (t.user_attrs["replicate_accuracies"] for t in study.trials)
    assert len(second) == 4
    assert second[:2] == first


def student(workplace: Workplace, point: Point, replicate: int, accuracy: float) -> Student:
    """A row of the tiny study with room to race."""
    distillation = distillation_at(tiny_config(**RACING), workplace.data.hash, point).hash
    return Student(distillation, "search", replicate, "tiny", accuracy, {}, 1.0, "")


def test_what_a_point_has_gained_since_its_visit_is_not_sold_again(workplace: Workplace) -> None:
    config = tiny_config(**RACING)
    study = visited(workplace, config, {Point(64, 1): 0.99, Point(64, 2): 0.99})
    run(config, workplace, Point(128, 1), study=study)
    assert replicates(study.trials[-1]) == 1
    for replicate in (1, 2, 3):  # a leader's
        workplace.store.students.add(student(workplace, Point(128, 1), replicate, 0.9))
    run(config, workplace, Point(128, 1), study=study)
    assert replicates(study.trials[-1]) == 8
    assert study.trials[-1].user_attrs["student_epochs"] == 8  # four students of two epochs


def test_a_revisit_that_was_interrupted_asks_for_no_more_than_it_did_before(workplace: Workplace) -> None:
    config, point = tiny_config(**RACING), Point(64, 1)
    study = visited(workplace, config, {point: 0.9, Point(64, 2): 0.9})
    kinds: dict[str, Any] = {"params": point.params, "distributions": distributions(config)}
    interrupted = {"given_back": "drained", "replicates_asked": 8}
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=interrupted, **kinds))
    for replicate in (4, 5):
        workplace.store.students.add(student(workplace, point, replicate, 0.9))
    again = {"retry_history": [study.trials[-1].number], "fixed_params": point.params}
    study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, system_attrs=again, **kinds))
    study.optimize(Objective(config, workplace=workplace), n_trials=1)
    assert replicates(study.trials[-1]) == 8
    run(config, workplace, point, study=study)
    assert replicates(study.trials[-1]) == 12


# -- racing -----------------------------------------------------------------------------------------------------------

SPREAD = (-0.004, -0.002, 0.002, 0.004)
RACING = {"student__replicates": {"min": 1, "max": 4}}


def visited(workplace: Workplace, config: StudyConfig, accuracies: dict[Point, float]) -> optuna.Study:
    """A study that has been at points where students scatter closely about these accuracies."""
    study = optuna.create_study(direction="maximize")
    for point, accuracy in accuracies.items():
        for replicate, apart in enumerate(SPREAD):
            student = Student(
                distillation_at(config, workplace.data.hash, point).hash,
                "search", replicate, "tiny", accuracy + apart, {}, 1.0, "",
            )  # fmt: skip
            workplace.store.students.add(student)
        attrs = {"replicate_accuracies": [accuracy + apart for apart in SPREAD]}
        study.add_trial(
            optuna.trial.create_trial(
                value=accuracy, params=point.params, distributions=distributions(config), user_attrs=attrs
            )
        )
    return study


def replicates(trial: optuna.trial.FrozenTrial) -> int:
    return len(trial.user_attrs["replicate_accuracies"])


def test_a_point_earns_students_only_while_it_may_be_the_best(workplace: Workplace) -> None:
    config = tiny_config(**RACING)
    study = visited(workplace, config, {Point(64, 1): 0.99, Point(64, 2): 0.99})
    run(config, workplace, Point(128, 1), study=study)
    assert replicates(study.trials[-1]) == 1
    # Asking for it again buys it more, whatever became of its race.
    run(config, workplace, Point(128, 1), study=study)
    assert replicates(study.trials[-1]) == 5
    assert study.trials[-1].user_attrs["student_epochs"] == 8


def test_a_point_that_may_be_the_best_gets_all_students(workplace: Workplace) -> None:
    config = tiny_config(**RACING)
    study = visited(workplace, config, {Point(64, 1): 0.01, Point(64, 2): 0.01})
    run(config, workplace, Point(128, 1), study=study)
    assert replicates(study.trials[-1]) == 4


def test_under_trained_points_need_not_be_beaten(workplace: Workplace) -> None:
    config = tiny_config(**RACING, search__min_steps=20)  # 17 steps an epoch at batch size 64, 8 at 128
    study = visited(workplace, config, {Point(64, 1): 0.99, Point(128, 2): 0.99, Point(64, 2): 0.01, Point(64, 3): 0.0})
    run(config, workplace, Point(128, 3), study=study)
    assert replicates(study.trials[-1]) == 4
    run(config, workplace, Point(128, 1), study=study)
    assert replicates(study.trials[-1]) == 1


def test_trials_of_anything_else_are_nobodys_rivals(workplace: Workplace) -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    assert replicates(run(tiny_config(), workplace, Point(64, 1), study=study).trials[-1]) == 2


def test_the_students_of_each_teacher_of_a_table_are_fresh_ones(workplace: Workplace) -> None:
    config = tiny_config(search__teacher={"seeds": 2}, student__replicates={"min": 1, "max": 2}, search__sampler="grid")
    points = [Point(64, 1, ((TEACHER_SEED, seed),)) for seed in (0, 1)]
    study = run(config, workplace, *points)
    assert [replicates(t) for t in study.trials] == [2, 2]
    rows = [
        workplace.store.students.of([distillation_at(config, workplace.data.hash, p).hash], "search") for p in points
    ]
    assert [[s.replicate for students in found.values() for s in students] for found in rows] == [[0, 1], [2, 3]]


# -- pruning ----------------------------------------------------------------------------------------------------------


class Asked(optuna.pruners.BasePruner):
    """Notes what is known of a trial whenever it is asked about it."""

    def __init__(self) -> None:
        self.known: list[set[str]] = []

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        self.known.append(set(trial.user_attrs))
        return False


def test_at_a_trials_own_epoch_the_pruner_knows_all_that_was_measured_of_its_teacher(workplace: Workplace) -> None:
    pruner = Asked()
    run(tiny_config(), workplace, Point(64, 2), study=optuna.create_study(direction="maximize", pruner=pruner))
    measured = {"teacher_accuracy", "similarity_entropy", "similarity_information", "delivered_similarity",
                "non_target_mass", "steps"}  # fmt: skip
    before, at_its_own = pruner.known
    assert not before & measured
    assert measured <= at_its_own


def test_a_pruned_trial_pays_for_no_student_and_has_no_value(workplace: Workplace) -> None:
    study = optuna.create_study(direction="maximize", pruner=sweetspot.SimilarityEntropyPruner(low=2.2))
    trial = run(tiny_config(), workplace, Point(64, 3), study=study).trials[0]
    assert trial.state == TrialState.PRUNED
    assert trial.value is None
    assert trial.user_attrs["pruned_at"] == 1
    assert "is below low = 2.2" in trial.user_attrs["pruned_because"]
    assert trial.user_attrs["student_epochs"] == 0
    assert trial.user_attrs["epochs_trained"] == 1


def test_a_loss_that_is_not_finite_is_infeasible_with_epoch_and_learning_rate_said(workplace: Workplace) -> None:
    config = tiny_config(teacher__optimizer={"name": "sgd", "lr": 1e30})
    trial = run(config, workplace, Point(64, 3)).trials[0]
    assert trial.state == TrialState.PRUNED
    assert trial.value is None
    assert "not finite in epoch 1 at learning rate 2e+30" in trial.user_attrs["infeasible"]
    assert trial.constraints == {"infeasible": 1.0}


def test_searched_temperature_shares_the_teacher_and_not_the_students(workplace: Workplace) -> None:
    config = tiny_config(search__student={"temperature": {"low": 1, "high": 8}})
    points = [Point(64, 2, (("student.temperature", t),)) for t in (2.0, 4.0)]
    study = run(config, workplace, *points)
    assert [t.user_attrs["epochs_trained"] for t in study.trials] == [2, 0]
    assert [t.user_attrs["student_epochs"] for t in study.trials] == [4, 4]


def test_it_is_usable_in_anybodys_own_study(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    objective = sweetspot.Objective(tiny_config(), storage=f"sqlite:///{tmp_path}/own.db", device="cpu")
    study.optimize(objective, n_trials=2)
    assert all(0.1 < t.value <= 1 for t in study.trials)  # type: ignore[operator]
    assert torch.get_num_threads() == 1


# -- what is told of a trial ------------------------------------------------------------------------------------------


@pytest.fixture
def told(workplace: Workplace) -> list[Findings]:
    """What the workplace is told, in order."""
    found: list[Findings] = []
    workplace.on_findings = lambda trial, findings: found.append(findings)
    return found


def test_a_trials_findings_are_told_while_it_can_still_be_written_to(
    workplace: Workplace, told: list[Findings]
) -> None:
    def write(trial: optuna.Trial, findings: Findings) -> None:
        told.append(findings)
        trial.set_user_attr("noted", True)

    workplace.on_findings = write
    trial = run(tiny_config(), workplace, Point(64, 3)).trials[0]
    assert trial.user_attrs["noted"]
    (findings,) = told
    assert (findings.point, findings.steps, findings.epoch, findings.ended) == (Point(64, 3), 3 * (1097 // 64), 3, None)
    assert findings.measurements["validation"].values["accuracy"] == trial.user_attrs["teacher_accuracy"]
    assert findings.measurements["train"].values["similarity_entropy"] == trial.intermediate_values[3]
    assert [s.accuracy for s in findings.students] == trial.user_attrs["replicate_accuracies"]
    assert findings.spent["epochs_trained"] == 3
    assert findings.similarity is not None
    assert findings.similarity.matrix.shape == (10, 10)
    assert findings.classes == tuple("0123456789")


def test_a_pruned_trials_findings_are_of_where_it_was_stopped_and_say_why(
    workplace: Workplace, told: list[Findings]
) -> None:
    study = optuna.create_study(direction="maximize", pruner=sweetspot.SimilarityEntropyPruner(low=2.2))
    trial = run(tiny_config(), workplace, Point(64, 3), study=study).trials[0]
    assert trial.state == TrialState.PRUNED
    (findings,) = told
    assert (findings.epoch, findings.students) == (1, ())
    assert findings.measurements["train"].epoch == 1
    assert findings.similarity is not None
    assert findings.ended == trial.user_attrs["pruned_because"]


def test_an_infeasible_trials_findings_say_why(workplace: Workplace, told: list[Findings]) -> None:
    config = tiny_config(teacher__optimizer={"name": "sgd", "lr": 1e30})
    trial = run(config, workplace, Point(64, 3)).trials[0]
    (findings,) = told
    assert (findings.epoch, findings.measurements, findings.similarity) == (0, {}, None)
    assert findings.ended == trial.user_attrs["infeasible"]


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), OSError("disk full"), DatabaseDownError("away")])
def test_a_note_that_fails_harms_no_trial(
    workplace: Workplace, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fails(trial: optuna.Trial, findings: Findings) -> None:
        raise error

    workplace.on_findings = fails
    trial = run(tiny_config(), workplace, Point(64, 1)).trials[0]
    assert trial.state == TrialState.COMPLETE
    assert f"trial 0 has no note: {type(error).__name__}: {error}" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        StoppedError(),
        LostLeaseError("a lease"),
        optuna.exceptions.UpdateFinishedTrialError("taken away"),
    ],
)
def test_what_takes_a_trial_away_passes_through_its_note(workplace: Workplace, error: BaseException) -> None:
    def interrupted(trial: optuna.Trial, findings: Findings) -> None:
        raise error

    workplace.on_findings = interrupted
    with pytest.raises(type(error)):
        run(tiny_config(), workplace, Point(64, 1))


# -- memory -----------------------------------------------------------------------------------------------------------


def _allocate_too_much(*arguments: object, **options: object) -> None:
    torch.empty(2**60)  # the allocator's own error


@pytest.mark.parametrize("where", ["train_teacher", "train_students"])
def test_a_point_that_does_not_fit_in_memory_is_infeasible_and_the_worker_lives(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    study = optuna.create_study(direction="maximize")
    objective = Objective(tiny_config(), workplace=workplace)
    with monkeypatch.context() as patched:
        patched.setattr(Visit, where, _allocate_too_much)
        study.enqueue_trial({"batch_size": 64, "epochs": 1})
        study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["infeasible"].startswith("out of memory (batch 64, 1 epoch): ")
    assert trial.value is None
    taken = Taken(study.trials)
    # A teacher's step needs the same memory whatever the epochs; a student's does not depend on the teacher.
    assert [Point(64, epochs) in taken for epochs in (1, 2, 3)] == [True] + [where == "train_teacher"] * 2
    assert Point(128, 1) not in taken
    study.optimize(objective, n_trials=1)
    assert study.trials[1].state == TrialState.COMPLETE


def test_an_error_that_is_not_about_memory_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), memory_errors():
        torch.ones(2, 3) @ torch.ones(2, 3)
