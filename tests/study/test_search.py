import optuna
import pytest
from optuna.trial import TrialState
from tiny_study import tiny_config

from sweetspot.data.study_data import StudyData
from sweetspot.errors import UserError
from sweetspot.store import Store
from sweetspot.store.schema import WorkerRow
from sweetspot.study.lost import queue_again, sweep
from sweetspot.study.search import (
    GIVEN_BACK,
    Counts,
    companions,
    create_or_continue,
    failures_in_a_row,
    get_study,
    load,
)
from sweetspot.study.space import distributions

CONFIG = tiny_config()


def running(store: Store, name: str = "tiny", worker: str | None = None) -> optuna.Trial:
    """A trial that is under way, as a worker leaves it behind."""
    trial = load(store, name).ask(distributions(CONFIG))
    if worker is not None:
        trial.set_user_attr("worker", worker)
    return trial


def states(store: Store) -> list[str]:
    return [t.state.name for t in load(store, "tiny").trials]


def test_a_study_is_created_once_and_continued_with_new_values_of_what_may_change(
    store: Store, digits: StudyData
) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    record = create_or_continue(store, "tiny", tiny_config(search__trials=9, confirm__seeds=7), digits)
    assert (record.config.search.trials, record.config.confirm.seeds) == (9, 7)
    assert len(store.studies.all()) == 1


def test_another_configuration_under_the_same_name_is_refused_with_the_keys_that_differ(
    store: Store, digits: StudyData
) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    with pytest.raises(UserError, match=r"student\.temperature \(4\.0 is stored, 2\.0 is asked for\)"):
        create_or_continue(store, "tiny", tiny_config(student__temperature=2.0), digits)
    assert get_study(store, "tiny").config == CONFIG


def test_an_optuna_study_that_is_somebody_elses_is_left_alone(store: Store, digits: StudyData) -> None:
    optuna.create_study(study_name="tiny", storage=store.database.storage)
    with pytest.raises(UserError, match="not Sweetspot's"):
        create_or_continue(store, "tiny", CONFIG, digits)
    assert store.studies.all() == []


def test_continuing_opens_a_search_that_had_ended(store: Store, digits: StudyData) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    store.studies.set_ended("tiny", "the space is full")
    assert create_or_continue(store, "tiny", CONFIG, digits).ended is None


def test_the_name_may_be_left_out_where_there_is_one_study(store: Store, digits: StudyData) -> None:
    with pytest.raises(UserError, match="there is no study"):
        get_study(store, None)
    create_or_continue(store, "tiny", CONFIG, digits)
    assert get_study(store, None).name == "tiny"
    create_or_continue(store, "other", CONFIG, digits)
    with pytest.raises(UserError, match="which study"):
        get_study(store, None)
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        get_study(store, "tinny")


def test_companions_are_found_by_the_studys_name(store: Store, digits: StudyData) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    for name in ("tiny/confirm", "tiny2/confirm"):
        optuna.create_study(study_name=name, storage=store.database.storage)
    assert companions(store, "tiny") == ["tiny/confirm"]


def test_the_trial_of_a_worker_that_ended_is_failed_and_given_back_with_its_parameters(
    store: Store, digits: StudyData
) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    worker = store.workers.register("cpu")
    trial = running(store, worker=worker)
    with store.database.session.begin() as session:
        row = session.get(WorkerRow, worker)
        assert row is not None
        row.process_start -= 1000  # the process id belongs to another process by now
    sweep(store, load(store, "tiny"))
    assert states(store) == ["FAIL", "WAITING"]
    assert load(store, "tiny").trials[1].params == trial.params
    again = load(store, "tiny").ask()
    assert again.number == 1
    assert {
        name: again.suggest_categorical(name, d.choices) for name, d in distributions(CONFIG).items()
    } == trial.params


def test_a_trial_that_never_got_a_worker_does_not_run_for_ever(store: Store, digits: StudyData) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    running(store)
    sweep(store, load(store, "tiny"))
    assert states(store) == ["FAIL", "WAITING"]


def test_the_trial_of_a_living_worker_is_left_alone(store: Store, digits: StudyData) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    running(store, worker=store.workers.register("cpu"))
    sweep(store, load(store, "tiny"))
    assert states(store) == ["RUNNING"]


def test_what_was_given_back_counts_once(store: Store, digits: StudyData) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    running(store)
    sweep(store, load(store, "tiny"))
    assert Counts.of(load(store, "tiny").trials) == Counts(complete=0, pruned=0, failed=0, running=0, waiting=1)


def test_a_trial_given_back_twice_remembers_both(store: Store, digits: StudyData) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    study = load(store, "tiny")
    running(store)
    sweep(store, study)
    study.ask()
    sweep(store, study)
    assert study.trials[2].system_attrs["retry_history"] == [0, 1]


def test_a_trial_that_was_only_enqueued_keeps_its_parameters_when_given_back(store: Store, digits: StudyData) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    study = load(store, "tiny")
    study.enqueue_trial({"batch_size": 64, "epochs": 3})
    trial = study.ask()
    trial.set_user_attr(GIVEN_BACK, "interrupted")
    study.tell(trial, state=TrialState.FAIL)
    queue_again(study)
    queue_again(study)  # it has its copy
    assert len(study.trials) == 2
    again = study.ask(distributions(CONFIG))
    assert again.params == {"batch_size": 64, "epochs": 3}


def test_failures_in_a_row_are_counted_from_the_last_that_finished(store: Store, digits: StudyData) -> None:
    create_or_continue(store, "tiny", CONFIG, digits)
    study = load(store, "tiny")
    for failed in (True, False, True, True):
        trial = study.ask(distributions(CONFIG))
        study.tell(trial, None if failed else 0.5, state=TrialState.FAIL if failed else TrialState.COMPLETE)
    assert [t.number for t in failures_in_a_row(study.trials)] == [3, 2]
