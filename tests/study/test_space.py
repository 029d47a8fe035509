import optuna
import pytest

from sweetspot.config import StudyConfig
from sweetspot.study.space import Point, config_at, distributions, points, suggest
from sweetspot.study_file import Draft, find


def config(**search: object) -> StudyConfig:
    draft = Draft.read(find("digits"))
    for key, value in search.items():
        draft.set(f"search.{key}", value, key)
    return draft.config()


def test_batch_sizes_and_epochs_are_categorical_with_their_true_sorted_values() -> None:
    space = distributions(config(batch_size=[64, 16, 32], epochs=[9, 3]))
    assert space["batch_size"] == optuna.distributions.CategoricalDistribution((16, 32, 64))
    assert space["epochs"] == optuna.distributions.CategoricalDistribution((3, 9))


def test_a_range_given_in_search_is_a_further_parameter() -> None:
    searched = config(
        student={"temperature": {"low": 1, "high": 8, "log": True}}, teacher={"model": ["mlp", "convnet"]}
    )
    space = distributions(searched)
    assert space["student.temperature"] == optuna.distributions.FloatDistribution(1, 8, log=True)
    assert space["teacher.model"] == optuna.distributions.CategoricalDistribution(("mlp", "convnet"))


def test_a_finite_space_lists_every_point_once() -> None:
    every = points(config(batch_size=[16, 32], epochs=[1, 2, 3], teacher={"model": ["mlp", "convnet"]}))
    assert every is not None
    assert len(every) == len(set(every)) == 12


def test_a_continuous_space_has_no_list_of_points() -> None:
    assert points(config(teacher={"lr": {"low": 0.01, "high": 0.1}})) is None


def test_the_configuration_at_a_point_has_the_points_values() -> None:
    study = config(
        student={"temperature": {"low": 1, "high": 8}, "alpha": {"low": 0.1, "high": 0.9}},
        teacher={"lr": {"low": 0.01, "high": 0.1}, "model": ["mlp", "convnet"]},
    )
    params = {
        "batch_size": 32,
        "epochs": 5,
        "student.temperature": 2.5,
        "student.alpha": 0.3,
        "teacher.lr": 0.07,
        "teacher.model": "mlp",
    }
    trial = optuna.create_study().ask(distributions(study))
    fixed = optuna.trial.FixedTrial(params)
    point = suggest(fixed, study)  # type: ignore[arg-type]
    assert point == Point.of(params)
    assert point.params == params
    at = config_at(study, point)
    assert (at.student.temperature, at.student.alpha) == (2.5, 0.3)
    assert (at.teacher.optimizer.lr, at.teacher.model) == (0.07, "mlp")
    assert at.teacher.optimizer.name == "sgd"
    assert at.search == study.search
    assert set(trial.params) == set(params)


@pytest.mark.parametrize("point", [Point(64, 5), Point(64, 5, (("student.alpha", 0.5),))])
def test_a_point_survives_its_parameters(point: Point) -> None:
    assert Point.of(point.params) == point
