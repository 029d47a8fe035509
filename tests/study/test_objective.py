from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState
from tiny_study import tiny_config

import sweetspot
from sweetspot.config import StudyConfig
from sweetspot.study.objective import Objective
from sweetspot.study.sampler import Taken
from sweetspot.study.space import Point
from sweetspot.study.visit import Visit, distillation_at
from sweetspot.study.workplace import Workplace
from sweetspot.training.engine import memory_errors


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
