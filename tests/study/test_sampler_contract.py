"""Every sampler through one list of cases: it proposes free points only, repeats exactly, and never raises."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from sweetspot.config import SearchConfig, StudyConfig
from sweetspot.study.sampler import PointSampler
from sweetspot.study.search import OUT_OF_MEMORY
from sweetspot.study.space import Point, distributions, points, suggest
from sweetspot.study_file import Draft, find

SAMPLERS = get_args(SearchConfig.model_fields["sampler"].annotation)
CONTINUOUS = [name for name in SAMPLERS if name != "grid"]
COMPLETE, PRUNED, RUNNING, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL
WSD = {"name": "wsd", "warmup": 0, "decay": 0.25}


def config(sampler: str, **values: Any) -> StudyConfig:
    draft = Draft.read(find("digits"))
    search = {"search.batch_size": [16, 32, 64], "search.epochs": [2, 4, 8, 16], "search.sampler": sampler}
    for key, value in {**search, **{key.replace("__", "."): value for key, value in values.items()}}.items():
        draft.set(key, value, key)
    return draft.config()


def told(point: Point, accuracies: list[Any]) -> dict[str, Any]:
    """The user attributes of a completed trial."""
    return {
        "replicate_accuracies": accuracies, "steps": point.epochs * (1497 // point.batch_size),
        "epochs_reached": point.epochs, "epochs_trained": point.epochs, "student_epochs": 20 * len(accuracies),
        "seconds": {"teacher": 0.1 * point.epochs, "measuring": 0.01, "waiting": 0.0, "students": 2.0},
    }  # fmt: skip


def trial(
    study_config: StudyConfig,
    point: Point,
    state: TrialState = COMPLETE,
    value: float | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    if state == COMPLETE and value is None:
        value = 0.9 - 0.01 * abs(point.epochs - 8)
    if attrs is None:
        attrs = told(point, [value] * 2) if state == COMPLETE else {}
    return optuna.trial.create_trial(
        state=state, value=value, params=point.params, distributions=distributions(study_config), user_attrs=attrs
    )


def proposed(study_config: StudyConfig, trials: Iterable[FrozenTrial] = (), **options: Any) -> Point:
    """What is proposed next; asked twice of studies that are alike, it must be the same."""
    found = []
    for _ in range(2):
        study = optuna.create_study(direction="maximize", sampler=PointSampler(study_config, **options))
        study.add_trials(trials)
        found.append(suggest(study.ask(), study_config))
    assert found[0] == found[1]
    return found[0]


def every(study_config: StudyConfig) -> list[Point]:
    return points(study_config) or []


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestEverySampler:
    def test_empty_history(self, sampler: str) -> None:
        assert proposed(config(sampler)) in every(config(sampler))

    def test_resume(self, sampler: str) -> None:
        """A search that stops and goes on, with trials given back in between, is the search that did not stop."""

        def go_on(study: optuna.Study, count: int) -> None:
            for _ in range(count):
                study.sampler = PointSampler(config(sampler))
                asked = study.ask()
                point = suggest(asked, config(sampler))
                value = 0.9 - 0.01 * abs(point.epochs - 8)
                for key, attr in told(point, [value, value + 0.001]).items():
                    asked.set_user_attr(key, attr)
                study.tell(asked, value)

        whole, parts = (optuna.create_study(direction="maximize") for _ in range(2))
        go_on(whole, 8)
        go_on(parts, 5)
        interrupted = parts.ask()
        interrupted.set_user_attr("given_back", "drained")
        parts.tell(interrupted, state=FAIL)
        go_on(parts, 3)
        assert [t.params for t in parts.trials if t.state == COMPLETE] == [t.params for t in whole.trials]

    def test_parallel(self, sampler: str) -> None:
        """Many workers at once, of which none has finished, and then some, are all at points of their own."""
        study_config = config(sampler)
        for complete in (0, 4):
            there = [trial(study_config, p) for p in every(study_config)[:complete]]
            for _ in range(12 - complete):
                there.append(trial(study_config, proposed(study_config, there), RUNNING))
            assert {Point.of(t.params) for t in there} == set(every(study_config))

    def test_what_would_wait_is_left_for_last(self, sampler: str) -> None:
        study_config = config(sampler)
        there = [trial(study_config, Point(32, e)) for e in (4, 8)] + [trial(study_config, Point(64, 16), RUNNING)]
        for _ in range(6):
            point = proposed(study_config, there, must_wait=lambda point, running: point.batch_size == 64)
            assert point.batch_size != 64
            there.append(trial(study_config, point))

    @pytest.mark.parametrize("accuracies", [[float("nan"), 0.9], [None, 0.9], [float("nan")], [None], [], None])
    def test_accuracies_that_are_no_numbers(self, sampler: str, accuracies: list[Any] | None) -> None:
        study_config = config(sampler)
        there = [trial(study_config, p) for p in every(study_config)[:5]]
        odd = every(study_config)[5]
        there.append(trial(study_config, odd, attrs=told(odd, [0.9]) | {"replicate_accuracies": accuracies}))
        assert proposed(study_config, there) in every(study_config)[6:]

    def test_attributes_that_are_not_there(self, sampler: str) -> None:
        study_config = config(sampler)
        there = [trial(study_config, p, attrs={}) for p in every(study_config)[:6]]
        assert proposed(study_config, there) in every(study_config)[6:]

    @pytest.mark.parametrize("accuracy", [0.0, 0.9, 1.0])
    def test_all_alike(self, sampler: str, accuracy: float) -> None:
        study_config = config(sampler)
        there = [trial(study_config, p, value=accuracy) for p in every(study_config)[:6]]
        assert proposed(study_config, there) in every(study_config)[6:]

    def test_trials_without_parameters(self, sampler: str) -> None:
        there = [optuna.trial.create_trial(state=state) for state in (RUNNING, FAIL, PRUNED)]
        assert proposed(config(sampler), there) in every(config(sampler))

    def test_all_pruned(self, sampler: str) -> None:
        study_config = config(sampler)
        there = [trial(study_config, p, PRUNED) for p in every(study_config)[:11]]
        assert proposed(study_config, there) == every(study_config)[11]

    def test_infeasible(self, sampler: str) -> None:
        """Where a teacher did not fit in memory, none of that batch size is tried again."""
        study_config = config(sampler)
        there = [trial(study_config, Point(64, 4), PRUNED, attrs={"infeasible": "memory", OUT_OF_MEMORY: True})]
        for _ in range(8):
            there.append(trial(study_config, proposed(study_config, there)))
        assert all(t.params["batch_size"] != 64 for t in there[1:])

    def test_one_point(self, sampler: str) -> None:
        study_config = config(sampler, search__batch_size=[32], search__epochs=[4])
        assert proposed(study_config) == Point(32, 4)
        assert proposed(study_config, [trial(study_config, Point(32, 4))]) == Point(32, 4)

    def test_a_full_space_buys_replicates_of_completed_points_only(self, sampler: str) -> None:
        study_config = config(sampler)
        first, *rest = every(study_config)
        last = rest.pop()
        there = [trial(study_config, p, PRUNED) for p in rest]
        there += [trial(study_config, first), trial(study_config, last)]
        for _ in range(6):
            point = proposed(study_config, there)
            assert point in (first, last)
            there.append(trial(study_config, point))

    @pytest.mark.parametrize("schedule", [{"name": "constant"}, WSD, {"name": "cosine"}], ids=lambda s: s["name"])
    def test_every_schedule(self, sampler: str, schedule: dict[str, Any]) -> None:
        study_config = config(sampler, teacher__schedule=schedule)
        there: list[FrozenTrial] = []
        for _ in range(12):
            there.append(trial(study_config, proposed(study_config, there)))
        assert {Point.of(t.params) for t in there} == set(every(study_config))

    def test_several_models(self, sampler: str) -> None:
        study_config = config(sampler, search__teacher={"model": ["convnet", "mlp"]}, search__epochs=[4, 8])
        there: list[FrozenTrial] = []
        for _ in range(12):
            there.append(trial(study_config, proposed(study_config, there)))
        assert {Point.of(t.params) for t in there} == set(every(study_config))


@pytest.mark.parametrize("sampler", CONTINUOUS)
@pytest.mark.parametrize(
    "further",
    [
        {"student": {"temperature": {"low": 1, "high": 8, "log": True}}},
        {"student": {"temperature": {"low": 1, "high": 8}, "alpha": {"low": 0.1, "high": 0.9}}},
        {"teacher": {"lr": {"low": 0.01, "high": 0.1, "log": True}, "model": ["convnet", "mlp"]}},
    ],
    ids=["temperature", "temperature and alpha", "learning rate and model"],
)
def test_further_parameters_stay_in_their_ranges(sampler: str, further: dict[str, Any]) -> None:
    study_config = config(sampler, **{f"search__{key}": value for key, value in further.items()})
    there = [trial(study_config, p, PRUNED, attrs={OUT_OF_MEMORY: True}) for p in [proposed(study_config)]]
    for _ in range(9):
        point = proposed(study_config, there)
        assert all(distributions(study_config)[name]._contains(value) for name, value in point.others
                   if isinstance(value, float))  # fmt: skip
        there.append(trial(study_config, point))
    visited = [Point.of(t.params) for t in there]
    assert len(set(visited)) == 10
    too_large = visited[0]
    model = dict(too_large.others).get("teacher.model")
    assert not any(
        p.batch_size == too_large.batch_size and dict(p.others).get("teacher.model") == model for p in visited[1:]
    )
