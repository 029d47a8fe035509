"""The comparison with and without the store, on a study of seconds."""

from pathlib import Path

import pytest
import torch
from tiny_study import tiny_config

from benchmarks.reuse import bound, compare
from sweetspot.data.study_data import load_study_data
from sweetspot.errors import UserError
from sweetspot.store.url import data_folder

WSD = {"name": "wsd", "warmup": 0, "decay": 0.34}


def test_the_store_trains_each_epoch_once_and_changes_nothing_else(tmp_path: Path) -> None:
    config = tiny_config(teacher__schedule=WSD, search__batch_size=[128], search__trials=3, student__epochs=1)
    found = compare(config, load_study_data(config, data_folder(), torch.device("cpu")), tmp_path)
    assert found.stored.trained == found.bound < found.bare.trained
    assert found.again.trained == 0
    assert found.bare.trained == found.bare.requested == found.stored.requested
    assert found.again.search.teacher_epochs_requested == found.stored.search.teacher_epochs_requested
    assert found.again.requested <= found.stored.requested, "arms whose students are there need no trial"
    assert found.is_same
    assert found.bare.search.student_epochs == found.stored.search.student_epochs == 3 * 2


def test_the_bound_is_each_trunk_once_and_each_branch_once() -> None:
    """With wsd the branches of 1, 2 and 3 epochs hang from the trunk at 0, 1 and 2."""
    assert bound(tiny_config(), "hash") == 2 * 3
    assert bound(tiny_config(teacher__schedule=WSD), "hash") == 2 * (2 + 1 + 1 + 1)


def test_there_is_no_such_bound_where_teachers_are_searched() -> None:
    with pytest.raises(UserError, match="one teacher per batch size"):
        bound(tiny_config(search__teacher={"model": ["convnet", "mlp"]}), "hash")
