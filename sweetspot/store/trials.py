"""Optuna's trials, read by columns: as objects of its mapping they take several times as long."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import json_to_distribution
from optuna.storages._rdb.models import (
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, select

_AT_ONCE = 500
"""Trials whose details are asked for at once: databases limit the variables of a statement."""

_distribution = lru_cache(256)(json_to_distribution)


def read_trials(
    connection: Connection,
    study_id: int,
    states: Collection[TrialState] | None,
    included: Collection[int],
    above: int,
) -> list[FrozenTrial]:
    """The trials of a study, by id: those whose id is ``included`` or greater than ``above``.

    Args:
        states: no others; None: whatever their state.
    """
    trial = TrialModel
    columns = trial.trial_id, trial.number, trial.state, trial._datetime_start_utc, trial._datetime_complete_utc
    query = select(*columns).where(trial.study_id == study_id).order_by(trial.trial_id)
    if states is not None:
        query = query.where(trial.state.in_(states))
    older = sorted(trial_id for trial_id in included if trial_id <= above)
    rows = list(connection.execute(query.where(trial.trial_id > above)))
    for ids in _portions(older):
        rows += connection.execute(query.where(trial.trial_id.in_(ids)))
    rows.sort()
    return [trial for portion in _portions(rows) for trial in _with_details(connection, portion)]


def _with_details(connection: Connection, rows: Sequence[Any]) -> Iterator[FrozenTrial]:
    ids = [row.trial_id for row in rows]

    def of(model: Any, *columns: Any) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = defaultdict(list)
        for row in connection.execute(select(model.trial_id, *columns).where(model.trial_id.in_(ids))):
            found[row.trial_id].append(row)
        return found

    param, value, step = TrialParamModel, TrialValueModel, TrialIntermediateValueModel
    params = of(param, param.param_id, param.param_name, param.param_value, param.distribution_json)
    values = of(value, value.objective, value.value, value.value_type)
    steps = of(step, step.step, step.intermediate_value, step.intermediate_value_type)
    user, system = (
        of(model, model.key, model.value_json) for model in (TrialUserAttributeModel, TrialSystemAttributeModel)
    )
    for trial_id, number, state, start, complete in rows:
        distributions = {
            name: (_distribution(text), internal) for _, _, name, internal, text in sorted(params[trial_id])
        }
        ordered = sorted(values[trial_id], key=lambda row: row.objective)
        yield FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=[value.stored_repr_to_value(stored, kind) for _, _, stored, kind in ordered] or None,
            datetime_start=_local(start),
            datetime_complete=_local(complete),
            params={name: kind.to_external_repr(internal) for name, (kind, internal) in distributions.items()},
            distributions={name: kind for name, (kind, _) in distributions.items()},
            user_attrs={key: json.loads(text) for _, key, text in user[trial_id]},
            system_attrs={key: json.loads(text) for _, key, text in system[trial_id]},
            intermediate_values={
                at: step.stored_repr_to_intermediate_value(stored, kind) for _, at, stored, kind in steps[trial_id]
            },
            trial_id=trial_id,
        )


def _portions(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), _AT_ONCE):
        yield items[first : first + _AT_ONCE]


def _local(utc: datetime | None) -> datetime | None:
    """As Optuna has it: stored without a zone in UTC, shown without a zone in local time."""
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
