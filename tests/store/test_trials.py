"""Trials that are read by columns equal those that Optuna reads, to the last detail."""

import math
from datetime import datetime

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweetspot.store import Store


def trials(study: optuna.Study) -> None:
    """One of every kind."""
    study.enqueue_trial({"x": 0.25}, user_attrs={"task": "é {}"})
    study.ask()
    study.ask({"x": FloatDistribution(0, 1), "n": IntDistribution(1, 9), "c": CategoricalDistribution(["a", None, 3])})
    pruned = study.ask({"lr": FloatDistribution(1e-5, 1.0, log=True)})
    for step, value in ((1, 0.5), (2, math.inf), (3, -math.inf), (30, math.nan)):
        pruned.report(value, step)
    pruned.set_constraint("infeasible", 1.0)
    study.tell(pruned, state=TrialState.PRUNED)
    done = study.ask({"c": CategoricalDistribution(["a", None, 3])})
    done.set_user_attr("nested", {"a": [1, 2.5, None, "ü"], "b": {"c": True}})
    study.tell(done, 0.1 + 0.2)
    study.tell(study.ask(), math.inf)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.add_trial(create_trial(state=TrialState.WAITING, system_attrs={"retry_history": [5]}))


def details(trial: FrozenTrial) -> tuple[object, ...]:
    times: list[datetime | None] = [trial.datetime_start, trial.datetime_complete]
    return (
        trial._trial_id, trial.number, trial.state, repr(trial.values), list(trial.params.items()),
        list(trial.distributions.items()), trial.user_attrs, trial.system_attrs, repr(trial.intermediate_values), times,
    )  # fmt: skip


def test_what_is_read_is_what_optuna_reads(store: Store) -> None:
    storage = store.database.storage
    study = optuna.create_study(storage=storage, direction="maximize", study_name="one")
    trials(optuna.create_study(storage=storage, direction="maximize", study_name="another"))
    trials(study)
    trials(study)
    ids = [trial._trial_id for trial in study.trials]
    assert len(ids) > 12
    for states in (None, (TrialState.WAITING,), (TrialState.RUNNING, TrialState.COMPLETE)):
        for included, above in ((set(), -1), (set(ids[:5]), ids[9]), ({ids[3], ids[12]}, ids[11]), (set(), ids[-1])):
            mine = storage._get_trials(study._study_id, states, included, above)
            theirs = RDBStorage._get_trials(storage, study._study_id, states, included, above)
            assert [details(trial) for trial in mine] == [details(trial) for trial in theirs]
