"""What must hold of every pruner that a study file can name, whatever is in the study."""

import math
from collections.abc import Iterable
from typing import Any, get_args

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from tiny_study import tiny_config

from sweetspot.config import Pruner
from sweetspot.study.jobs import pruner
from sweetspot.study.space import distributions

LOW, HIGH = 0.3, 2.0
RULES: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "similarity entropy": {"name": "similarity-entropy"},
    "similarity entropy, eager": {"name": "similarity-entropy", "n_startup_trials": 4, "p": 0.49},
    "similarity entropy, bounded": {"name": "similarity-entropy", "low": LOW, "high": HIGH},
    "similarity entropy, bounds alone": {"name": "similarity-entropy", "low": LOW, "high": HIGH, "learn": False},
}
LEARNING = [name for name, rule in RULES.items() if name != "none" and rule.get("learn", True)]
SIZES, EPOCHS = [32, 64, 128, 256], [2, 4, 8, 16]
POINTS = [(size, epochs) for size in SIZES for epochs in EPOCHS]
WITHIN = [0.4 + 0.1 * i for i in range(16)]
"""Values of S that no explicit bound prunes."""


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(rule: str) -> optuna.pruners.BasePruner:
    return pruner(tiny_config(search__batch_size=SIZES, search__epochs=EPOCHS, pruner=RULES[rule]))


def space() -> dict[str, optuna.distributions.BaseDistribution]:
    return distributions(tiny_config(search__batch_size=SIZES, search__epochs=EPOCHS))


def study_of(rule: str, trials: Iterable[FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(direction="maximize", pruner=made(rule))
    study.add_trials(list(trials))
    return study


def finished(point: tuple[int, int], entropy: float, value: float, **attrs: object) -> FrozenTrial:
    size, epochs = point
    return create_trial(
        params={"batch_size": size, "epochs": epochs},
        distributions=space(),
        value=value,
        intermediate_values={epochs: entropy},
        user_attrs={"replicate_accuracies": [value - 0.002, value + 0.002], **attrs},
    )


def stopped(point: tuple[int, int], entropy: float, state: TrialState = TrialState.PRUNED) -> FrozenTrial:
    size, epochs = point
    return create_trial(
        state=state,
        params={"batch_size": size, "epochs": epochs},
        distributions=space(),
        intermediate_values={epochs: entropy, epochs + 1: math.nan},
    )


def entropy_of(point: tuple[int, int]) -> float:
    """Falls along the epochs, and from large batches to small ones: 0.4 to 1.9."""
    return 0.4 + 0.1 * (3 - EPOCHS.index(point[1])) * 4 + 0.1 * SIZES.index(point[0])


def accuracy_of(point: tuple[int, int]) -> float:
    return 0.9 - 0.1 * (entropy_of(point) - 0.7) ** 2


def full() -> list[FrozenTrial]:
    return [finished(point, entropy_of(point), accuracy_of(point)) for point in POINTS]


def decide(study: optuna.Study, entropy: float, point: tuple[int, int] = (64, 8), step: int | None = None) -> bool:
    """Whether a trial of the point that reports S at its own epoch, or at ``step``, is pruned."""
    study.enqueue_trial({"batch_size": point[0], "epochs": point[1]})
    trial = study.ask(space())
    trial.report(entropy, point[1] if step is None else step)
    return trial.should_prune()


def decisions(study: optuna.Study) -> list[bool]:
    return [decide(study, entropy, point) for entropy in (0.1, *WITHIN, 2.5) for point in ((64, 8), (32, 4))]


def test_every_pruner_that_a_study_file_can_name_is_here() -> None:
    union = get_args(get_args(Pruner)[0])
    names = {get_args(each)[0].model_fields["name"].default for each in union}
    assert {rule["name"] for rule in RULES.values()} == names


def test_a_pruner_made_anew_decides_the_same(rule: str) -> None:
    study = study_of(rule, full())
    first = decisions(study)
    study.pruner = made(rule)
    assert decisions(study) == first
    assert any(first) == (rule != "none")


def test_what_others_are_running_changes_nothing(rule: str) -> None:
    others = [
        *(stopped(point, 0.9, TrialState.RUNNING) for point in POINTS),
        create_trial(state=TrialState.RUNNING, params={"batch_size": 32, "epochs": 2}, distributions=space()),
    ]
    alone, beside = study_of(rule, full()), study_of(rule, full())
    beside.add_trials(others)
    assert decisions(beside) == decisions(alone)


def test_what_was_stopped_or_failed_changes_nothing(rule: str) -> None:
    rest = [stopped(p, 0.4, TrialState.FAIL) for p in POINTS] + [stopped(p, 1.8) for p in POINTS]
    assert decisions(study_of(rule, [*full(), *rest])) == decisions(study_of(rule, full()))


def test_without_a_history_only_explicit_bounds_act(rule: str) -> None:
    study = study_of(rule, [])
    assert not any(decide(study, entropy) for entropy in WITHIN)


def test_where_every_trial_was_pruned_only_explicit_bounds_act(rule: str) -> None:
    study = study_of(rule, [stopped(point, entropy_of(point)) for point in POINTS * 2])
    assert not any(decide(study, entropy) for entropy in WITHIN)


def test_nan_is_never_pruned(rule: str) -> None:
    study = study_of(rule, full())
    assert not any(decide(study, math.nan, step=step) for step in (2, 8))


def test_nan_among_what_was_learned_changes_nothing(rule: str) -> None:
    study = study_of(rule, [*full(), *(finished(point, math.nan, 0.2) for point in POINTS)])
    assert decisions(study) == decisions(study_of(rule, full()))


def test_measurements_that_are_not_numbers_change_nothing(rule: str) -> None:
    strange: dict[str, object] = {"teacher_accuracy": "high", "steps": -1, "delivered_similarity": None}
    trials = [finished(point, entropy_of(point), accuracy_of(point), **strange) for point in POINTS]
    assert decisions(study_of(rule, trials)) == decisions(study_of(rule, full()))


def test_one_point_teaches_nothing_of_others(rule: str) -> None:
    study = study_of(rule, [finished((64, 8), 0.7, 0.9 + 0.001 * i) for i in range(30)])
    assert not any(decide(study, entropy) for entropy in WITHIN)


def test_where_every_accuracy_is_the_same_nothing_is_pruned(rule: str) -> None:
    same = [
        create_trial(
            params={"batch_size": size, "epochs": epochs},
            distributions=space(),
            value=0.8,
            intermediate_values={epochs: entropy_of((size, epochs))},
        )
        for size, epochs in POINTS
    ]
    study = study_of(rule, same)
    assert not any(decide(study, entropy) for entropy in WITHIN)


def test_in_a_full_space_the_best_point_may_be_visited_again(rule: str) -> None:
    best = max(POINTS, key=accuracy_of)
    study = study_of(rule, full())
    assert not any(decide(study, entropy_of(best), best) for _ in range(3))


def test_before_its_own_epoch_a_trial_meets_only_low(rule: str) -> None:
    study = study_of(rule, full())
    assert not any(decide(study, entropy, (64, 16), step=4) for entropy in [*WITHIN, 2.5])


def test_what_is_pruned_says_why(rule: str) -> None:
    study = study_of(rule, full())
    before = len(study.trials)
    pruned = decisions(study)
    assert [("pruned_because" in trial.user_attrs) for trial in study.trials[before:]] == pruned


@pytest.mark.parametrize("rule", LEARNING)
def test_those_that_learn_prune_the_hopeless_and_spare_the_good(rule: str) -> None:
    study = study_of(rule, full())
    hopeless = [decide(study, 1.85, (size, epochs)) for size, epochs in POINTS]
    assert sum(hopeless) >= 0.7 * len(hopeless)
    if RULES[rule].get("p", 0.05) <= 0.05:
        assert not any(decide(study, 0.72, point) for point in POINTS)
