import json
import random
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from sweetspot import SimilarityEntropyPruner
from sweetspot.study.pruner import chance_of_best

RECORDED = json.loads((Path(__file__).parent / "recorded" / "digits.json").read_text())["points"]
"""A whole grid of digits, trained for real: the command stands in the file."""


def study_of(points: list[tuple[float, float]]) -> optuna.Study:
    """A study whose completed trials have reported S at their own epoch, 10, and have these values."""
    study = optuna.create_study(direction="maximize")
    epochs = optuna.distributions.IntDistribution(1, 100)
    for entropy, value in points:
        study.add_trial(
            optuna.trial.create_trial(
                params={"epochs": 10}, distributions={"epochs": epochs}, value=value, intermediate_values={10: entropy}
            )
        )
    return study


def decide(
    pruner: SimilarityEntropyPruner, study: optuna.Study, entropy: float, step: int = 10, epochs: int = 10
) -> tuple[bool, dict[str, Any]]:
    """Whether a trial of ``epochs`` epochs that reports S at ``step`` is pruned, and its attributes."""
    study.pruner = pruner
    trial = study.ask({"epochs": optuna.distributions.IntDistribution(epochs, epochs)})
    trial.report(entropy, step)
    return trial.should_prune(), study.trials[trial.number].user_attrs


FALLING = [(1.8 - 0.1 * i, 0.5 + 0.03 * i + 0.004 * (-1) ** i) for i in range(14)]
"""Students get better as similarity entropy falls from 1.8 to 0.5."""


def test_below_low_a_trial_is_pruned_at_any_rung_and_says_why() -> None:
    pruned, attrs = decide(SimilarityEntropyPruner(low=0.5), study_of([]), 0.4, step=3)
    assert pruned
    assert attrs["pruned_because"] == "similarity entropy 0.400 is below low = 0.5 (epoch 3)"


def test_above_high_a_trial_is_pruned_at_its_own_epochs_only() -> None:
    pruner = SimilarityEntropyPruner(high=1.0)
    assert not decide(pruner, study_of([]), 1.2, step=3)[0]
    assert decide(pruner, study_of([]), 1.2, step=10)[0]


def test_what_is_learned_acts_at_a_trials_own_epochs_only() -> None:
    pruner = SimilarityEntropyPruner()
    assert not decide(pruner, study_of(FALLING), 1.7, step=3)[0]
    pruned, attrs = decide(pruner, study_of(FALLING), 1.7, step=10)
    assert pruned
    assert "promises a student accuracy of 0.53" in attrs["pruned_because"]


def test_the_best_is_not_pruned() -> None:
    assert not decide(SimilarityEntropyPruner(), study_of(FALLING), 0.51)[0]


def test_nothing_learned_acts_before_enough_trials_are_complete() -> None:
    assert not decide(SimilarityEntropyPruner(n_startup_trials=15), study_of(FALLING), 1.7)[0]


@pytest.mark.parametrize("entropy", [0.3, 1.9])
def test_nothing_learned_acts_outside_the_range_that_was_seen(entropy: float) -> None:
    assert not decide(SimilarityEntropyPruner(), study_of(FALLING), entropy)[0]


def test_without_learning_only_the_bounds_act() -> None:
    assert not decide(SimilarityEntropyPruner(learn=False), study_of(FALLING), 1.7)[0]


def test_a_margin_keeps_what_is_nearly_as_good() -> None:
    assert not decide(SimilarityEntropyPruner(margin=0.4), study_of(FALLING), 1.7)[0]


def test_noise_that_similarity_entropy_does_not_explain_keeps_the_pruner_from_acting() -> None:
    rng = random.Random(0)
    noisy = [(entropy, 0.8 + rng.gauss(0, 0.05)) for entropy, _ in FALLING]
    assert not any(decide(SimilarityEntropyPruner(), study_of(noisy), e)[0] for e in (0.6, 0.9, 1.2, 1.5))


def test_one_in_ten_of_those_it_would_prune_runs_anyway_and_is_marked() -> None:
    decisions = [decide(SimilarityEntropyPruner(seed=i), study_of(FALLING), 1.7) for i in range(200)]
    let_run = [attrs for pruned, attrs in decisions if not pruned]
    assert 8 <= len(let_run) <= 36  # 20 expected, sd 4.2
    assert all("promises" in attrs["would_prune"] for attrs in let_run)


def test_an_explicit_bound_has_no_exceptions() -> None:
    study = study_of(FALLING)
    assert all(decide(SimilarityEntropyPruner(low=0.5), study, 0.4, epochs=e, step=e)[0] for e in range(1, 60))


def test_a_trial_without_reports_or_with_nan_is_left_alone() -> None:
    study = study_of(FALLING)
    study.pruner = SimilarityEntropyPruner(low=5.0)
    trial = study.ask()
    assert not trial.should_prune()
    trial.report(float("nan"), 1)
    assert not trial.should_prune()


@pytest.mark.parametrize(
    "arguments", [{"low": 2.0, "high": 1.0}, {"n_startup_trials": 3}, {"p": 0.0}, {"p": 0.5}, {"margin": -0.1}]
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        SimilarityEntropyPruner(**arguments)


def test_it_works_alone_in_anybodys_study() -> None:
    def objective(trial: optuna.Trial) -> float:
        epochs = trial.suggest_int("epochs", 1, 20)
        for epoch in range(1, epochs + 1):
            trial.report(2.0 / epoch, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return 1 - abs(epochs - 8) / 20

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=1),
        pruner=SimilarityEntropyPruner(low=0.15, n_startup_trials=5),
    )
    study.optimize(objective, n_trials=40)
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert pruned
    assert all("pruned_because" in t.user_attrs for t in pruned)
    assert abs(study.best_params["epochs"] - 8) <= 1


def test_the_chance_counts_the_distance_in_units_of_what_is_unexplained() -> None:
    rng = np.random.default_rng(0)
    entropies = np.linspace(0.5, 1.5, 400)
    values = 0.9 - 0.1 * (entropies - 0.8) ** 2 + rng.normal(0, 0.01, 400)
    chance, expected, best = chance_of_best(entropies, values, 1.3, 0.0)
    assert expected == pytest.approx(0.875, abs=0.003)
    assert best == pytest.approx(0.9, abs=0.003)
    assert chance == pytest.approx(0.0062, abs=0.006)  # 2.5 standard deviations below


def replay(seed: int) -> list[dict[str, Any]]:
    """The points that are pruned when the recorded grid is searched in a random order."""
    study = optuna.create_study(direction="maximize", pruner=SimilarityEntropyPruner(seed=seed))
    sizes = optuna.distributions.CategoricalDistribution(sorted({p["batch_size"] for p in RECORDED}))
    ladder = optuna.distributions.CategoricalDistribution(sorted({p["epochs"] for p in RECORDED}))
    pruned = []
    for point in random.Random(seed).sample(RECORDED, len(RECORDED)):
        study.enqueue_trial({"batch_size": point["batch_size"], "epochs": point["epochs"]})
        trial = study.ask({"batch_size": sizes, "epochs": ladder})
        for step, entropy in point["similarity_entropy"].items():
            trial.report(entropy, int(step))
            if trial.should_prune():
                pruned.append(point)
                trial.report(float("nan"), 1000)
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, fmean(point["accuracies"]))
    return pruned


def test_on_recorded_curves_the_best_points_survive() -> None:
    """In 40 searches of a real grid in random orders; "best" by the recorded means of three students."""
    best = sorted(RECORDED, key=lambda p: -fmean(p["accuracies"]))
    replays = [replay(seed) for seed in range(40)]
    assert sum(any(p in best[:6] for p in pruned) for pruned in replays) <= 1
    assert sum(p in best[:18] for pruned in replays for p in pruned) <= 0.01 * 40 * 18
    assert fmean(map(len, replays)) > 4, "the shortest teachers are hopeless: a pruner that spares them saves nothing"
