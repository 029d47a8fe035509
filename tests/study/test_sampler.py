import optuna
import pytest
from optuna.trial import TrialState

from sweetspot.config import StudyConfig
from sweetspot.study.sampler import Memory, PointSampler, Taken
from sweetspot.study.space import Point, points, suggest
from sweetspot.study_file import Draft, find

SAMPLERS = ["tpe", "gp", "cost-aware", "random", "grid"]


def config(sampler: str, **search: object) -> StudyConfig:
    draft = Draft.read(find("digits"))
    values = {"batch_size": [16, 32, 64], "epochs": [2, 4, 8, 16], "sampler": sampler, **search}
    for key, value in values.items():
        draft.set(f"search.{key}", value, key)
    return draft.config()


def accuracy(point: Point) -> float:
    """Best at batch size 32 and 8 epochs."""
    return 0.9 - 0.02 * abs(point.batch_size - 32) / 16 - 0.01 * abs(point.epochs - 8)


def search(study: optuna.Study, study_config: StudyConfig, trials: int) -> list[Point]:
    found = []

    def objective(trial: optuna.Trial) -> float:
        found.append(suggest(trial, study_config))
        return accuracy(found[-1])

    for _ in range(trials):
        study.sampler = PointSampler(study_config)
        study.optimize(objective, n_trials=1)
    return found


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_full_search_visits_every_point_once(sampler: str) -> None:
    study_config = config(sampler)
    found = search(optuna.create_study(direction="maximize"), study_config, 12)
    every = points(study_config)
    assert every is not None
    assert sorted(found, key=str) == sorted(every, key=str)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seeded_search_repeats_exactly(sampler: str) -> None:
    first = search(optuna.create_study(direction="maximize"), config(sampler), 8)
    assert search(optuna.create_study(direction="maximize"), config(sampler), 8) == first


def test_another_seed_searches_elsewhere() -> None:
    other = config("random").model_copy(update={"seed": 1})
    first = search(optuna.create_study(direction="maximize"), config("random"), 6)
    assert search(optuna.create_study(direction="maximize"), other, 6) != first


def test_a_continued_search_equals_one_in_one_go() -> None:
    whole = search(optuna.create_study(direction="maximize"), config("tpe"), 9)
    study = optuna.create_study(direction="maximize")
    assert search(study, config("tpe"), 5) + search(study, config("tpe"), 4) == whole


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_busy_points_are_taken_only_when_no_other_is_free(sampler: str) -> None:
    study_config = config(sampler)
    study = optuna.create_study(direction="maximize")
    found = []
    for _ in range(12):
        study.sampler = PointSampler(study_config, lambda point, running: point.batch_size == 16)
        study.optimize(lambda trial: accuracy(found.append(suggest(trial, study_config)) or found[-1]), n_trials=1)
    assert [p.batch_size == 16 for p in found] == [False] * 8 + [True] * 4


def test_whoever_judges_the_wait_is_told_the_points_that_run() -> None:
    study_config = config("random")
    study = optuna.create_study(direction="maximize")
    told: list[list[Point]] = []

    def must_wait(point: Point, running: list[Point]) -> bool:
        told.append(running)
        return False

    study.sampler = PointSampler(study_config, must_wait)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)  # without parameters: it has no point
    points = [suggest(study.ask(), study_config) for _ in range(3)]
    assert told[0] == []
    assert told[-1] == points[:2]


def test_tpe_learns_the_order_of_the_values() -> None:
    """On a long ladder, TPE by rank comes to the best point sooner than chance does (1 in 2 by the middle)."""
    hits = 0
    for seed in range(10):
        ladder = list(range(1, 41))
        study_config = config("tpe", epochs=ladder).model_copy(update={"seed": seed})
        found = search(optuna.create_study(direction="maximize"), study_config, 30)
        hits += any(abs(p.epochs - 8) <= 1 and p.batch_size == 32 for p in found)
    assert hits >= 7  # by chance 3 points of 120 are hit in 30 draws 58 times of 100


def test_a_continuous_space_is_searched_with_a_point_per_trial() -> None:
    study_config = config("tpe", student={"temperature": {"low": 1, "high": 8}})
    found = search(optuna.create_study(direction="maximize"), study_config, 15)
    assert len(set(found)) == 15
    assert all(1 <= dict(p.others)["student.temperature"] <= 8 for p in found)


def trial(state: TrialState, epochs: int, **attrs: str) -> optuna.trial.FrozenTrial:
    choices = optuna.distributions.CategoricalDistribution((1, 2, 3, 4, 5, 6))
    sizes = optuna.distributions.CategoricalDistribution((16,))
    return optuna.trial.create_trial(
        state=state,
        value=0.5 if state == TrialState.COMPLETE else None,
        params={"batch_size": 16, "epochs": epochs},
        distributions={"batch_size": sizes, "epochs": choices},
        user_attrs=attrs,
    )


def test_only_what_was_given_back_is_free_again() -> None:
    trials = [
        trial(TrialState.COMPLETE, 1),
        trial(TrialState.PRUNED, 2),
        trial(TrialState.RUNNING, 3),
        trial(TrialState.WAITING, 4),
        trial(TrialState.FAIL, 5),
        trial(TrialState.FAIL, 6, given_back="interrupted"),
    ]
    taken = Taken(trials)
    assert [epochs for epochs in range(1, 8) if Point(16, epochs) in taken] == [1, 2, 3, 4, 5]


def test_a_point_that_failed_before_the_study_was_continued_is_free_again() -> None:
    study = optuna.create_study()
    for state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL):
        study.add_trial(trial(state, len(study.trials) + 1))
    for continued, taken in ((0, [1, 2, 3, 4]), (3, [1, 3, 4]), (4, [1, 3])):
        found = Memory(config("tpe"), continued).taken(study.trials)
        assert [epochs for epochs in range(1, 5) if Point(16, epochs) in found] == taken
