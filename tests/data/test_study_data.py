"""A study's images: splits, views and probes, on real digits."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sweetspot.config import StudyConfig
from sweetspot.data.digits import Digits
from sweetspot.data.images import Images, content_hash
from sweetspot.data.study_data import StudyData, load_study_data
from sweetspot.data.views import Normalisation
from sweetspot.errors import UserError
from sweetspot.store.url import data_folder

CPU = torch.device("cpu")
IMAGES = 1397


class Watched(Digits):
    """The digits, with a count of the looks at their test split."""

    def __init__(self) -> None:
        super().__init__(data_folder())
        self.looks = 0

    def test(self) -> Images:
        self.looks += 1
        return super().test()


def config(validation: int | float = 200, augmentation: tuple[str, ...] = ("crop",), **values: Any) -> StudyConfig:
    data = {"dataset": "digits", "validation": validation, "augmentation": augmentation}
    return StudyConfig.model_validate(
        {"data": data, "search": {"batch_size": [32, 64]}, "student": {"batch_size": 32}} | values
    )


def study_data(*args: Any, **values: Any) -> StudyData:
    return StudyData(Digits(data_folder()), config(*args, **values), CPU)


def rows(images: Tensor) -> list[tuple[float, ...]]:
    """Each image's pixels."""
    return [tuple(image) for image in images.flatten(1).tolist()]


@pytest.mark.parametrize(("validation", "held_out"), [(10, 10), (200, 200), (0.1, 140)])
def test_the_splits_have_the_sizes_that_were_asked_for(validation: int | float, held_out: int) -> None:
    data = study_data(validation)
    assert len(data.validation) == len(data.validation.images) == held_out
    assert data.train_images == len(data.labels) == len(data.views(0, 0)[:]) == IMAGES - held_out
    assert (data.channels, data.image_size, len(data.classes)) == (1, 8, 10)


def test_no_image_is_in_both_splits_and_none_is_lost() -> None:
    data = study_data(augmentation=())
    both = torch.cat([data.views(0, 0)[:], data.validation.images])
    ranks = [images.unique(return_inverse=True)[1] for images in (both, Digits(data_folder()).train().images)]
    assert sorted(rows(ranks[0])) == sorted(rows(ranks[1]))


def test_images_are_normalised_by_the_training_split_alone() -> None:
    data = study_data(augmentation=())
    views = data.views(0, 0)[:]
    assert views.dtype == torch.float32
    assert views.is_contiguous(memory_format=torch.channels_last)
    assert views.mean().item() == pytest.approx(0, abs=1e-5)
    assert views.std().item() == pytest.approx(1, abs=1e-4)
    of_all = Normalisation.of(Digits(data_folder()).train())
    assert data.validation.images.mean().item() != pytest.approx(0, abs=1e-4)
    assert data.validation.images.min().item() != pytest.approx(-of_all.mean[0] / of_all.std[0], abs=1e-6)


def test_the_split_and_the_probe_follow_from_the_studys_seed() -> None:
    one, same, other = study_data(), study_data(), study_data(seed=1)
    assert torch.equal(one.validation.images, same.validation.images)
    assert torch.equal(one.train_probe.images, same.train_probe.images)
    assert not torch.equal(one.validation.images, other.validation.images)
    assert not torch.equal(one.train_probe.images, other.train_probe.images)


def test_the_hash_is_that_of_the_whole_training_set_however_it_is_split() -> None:
    assert study_data().hash == content_hash(Digits(data_folder()).train(), Digits.classes)
    assert study_data().hash == study_data(100, ("crop", "flip"), seed=5).hash


# -- views ------------------------------------------------------------------------------------------------------------


def test_views_are_fixed_by_seed_and_epoch() -> None:
    data, again = study_data(), study_data()
    torch.manual_seed(1)
    first = data.views(3, 7)[:]
    torch.manual_seed(2)
    data.views(3, 8)
    assert torch.equal(first, data.views(3, 7)[:])
    assert torch.equal(first, again.views(3, 7)[:])


def test_with_augmentation_every_epoch_and_every_seed_has_other_views() -> None:
    data = study_data()
    assert data.views_differ
    assert not torch.equal(data.views(0, 0)[:], data.views(0, 1)[:])
    assert not torch.equal(data.views(0, 0)[:], data.views(1, 0)[:])


def test_without_augmentation_no_view_differs() -> None:
    data = study_data(augmentation=())
    assert not data.views_differ
    assert torch.equal(data.views(0, 0)[:], data.views(1, 5)[:])


# -- probes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [10, 200, 0.1, 0.5, 0.7, 0.9])
def test_both_probes_have_the_same_size(validation: int | float) -> None:
    data = study_data(validation)
    assert len(data.train_probe) == len(data.validation)
    assert data.train_probe.images.shape == data.validation.images.shape


def test_the_training_probe_is_of_different_training_images() -> None:
    data = study_data(augmentation=())
    labels = dict(zip(rows(data.views(0, 0)[:]), data.labels.tolist(), strict=True))
    probe = rows(data.train_probe.images)
    assert len(set(probe)) == len(probe) == 200
    assert [labels[image] for image in probe] == data.train_probe.labels.tolist()


def test_the_training_probe_is_augmented_once_and_for_all() -> None:
    augmented, plain = study_data(), study_data(augmentation=())
    assert torch.equal(augmented.train_probe.labels, plain.train_probe.labels)
    assert not torch.equal(augmented.train_probe.images, plain.train_probe.images)
    assert augmented.train_probe is augmented.train_probe


def test_where_images_must_be_drawn_again_all_have_been_drawn_before() -> None:
    data = study_data(0.7, augmentation=())
    probe = rows(data.train_probe.images)
    assert len(probe) == 978
    assert set(probe) == set(rows(data.views(0, 0)[:]))


# -- the test split ---------------------------------------------------------------------------------------------------


def test_the_test_split_is_touched_by_test_alone() -> None:
    dataset = Watched()
    data = StudyData(dataset, config(), CPU)
    _ = data.views(0, 0), data.validation, data.train_probe, data.labels, data.hash
    assert dataset.looks == 0
    data.test()
    data.test()
    assert dataset.looks == 2


def test_the_test_split_is_normalised_like_the_others() -> None:
    data = study_data()
    test = data.test()
    assert len(test) == 400
    assert test.images.min() == data.validation.images.min()
    assert torch.equal(test.labels, Digits(data_folder()).test().labels)


# -- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{"search": {"batch_size": [32, 1198]}}, {"student": {"batch_size": 1198}}])
def test_a_batch_size_above_the_training_images_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="batch size 1198 is above the 1197 training images of digits"):
        study_data(**values)


def test_a_batch_may_be_all_training_images() -> None:
    assert study_data(search={"batch_size": [1197]}).train_images == 1197


def test_a_validation_split_larger_than_the_data_set_is_refused() -> None:
    with pytest.raises(UserError, match="of 1397 training images"):
        study_data(5000)


def test_a_studys_data_is_opened_by_its_name() -> None:
    assert load_study_data(config(), data_folder(), CPU).hash == study_data().hash
