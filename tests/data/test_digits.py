import torch
from sklearn.datasets import load_digits

from sweetspot.data import info, open_dataset
from sweetspot.data.images import content_hash
from sweetspot.store.url import data_folder


def test_the_digits_are_divided_into_a_training_set_and_a_test_set_that_share_no_image() -> None:
    digits = open_dataset("digits", data_folder())
    train, test = digits.train(), digits.test()
    together = torch.cat([train.images, test.images]).view(1797, 64)
    original = torch.from_numpy(load_digits().data)
    # every original image is there exactly as often as it should be
    scaled = (original * 255 / 16).round().to(torch.uint8)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, scaled.tolist()))


def test_the_digits_are_what_their_info_says() -> None:
    about = info("digits")
    digits = open_dataset("digits", data_folder())
    train = digits.train()
    assert about is not None
    assert (about.train_images, about.test_images) == (len(train), len(digits.test()))
    assert (about.classes, about.channels, about.image_size) == (len(digits.classes), train.channels, train.image_size)


def test_pixels_reach_from_black_to_white() -> None:
    images = open_dataset("digits", data_folder()).train().images
    assert (int(images.min()), int(images.max())) == (0, 255)


def test_every_digit_has_its_share_of_the_test_set() -> None:
    digits = open_dataset("digits", data_folder())
    train, test = digits.train().labels.bincount(), digits.test().labels.bincount()
    share = test / (train + test)
    assert float((share - 400 / 1797).abs().max()) < 0.006  # one image of about 180


def test_the_digits_are_the_same_on_every_machine() -> None:
    digits = open_dataset("digits", data_folder())
    assert content_hash(digits.train(), digits.classes).startswith("757f3306a2c7")
