"""The digits of scikit-learn: 1,797 real images of 8x8 pixels, on every machine without a download."""

from pathlib import Path

import numpy as np
import torch

from sweetspot.data.images import DataSet, Images
from sweetspot.data.split import split

TEST_IMAGES = 400
_TEST_SEED = 0  # part of the data set: another seed would be another data set


class Digits(DataSet):
    """Grey 8x8 images of ten digits; scikit-learn has no test set of them, so 400 are drawn once and for all."""

    name = "digits"
    classes = tuple("0123456789")

    def __init__(self, root: Path | None = None) -> None:
        """Opens nothing and needs no ``root``: the images come with scikit-learn."""

    def train(self) -> Images:
        images = _all()
        return images.subset(split(images.labels, TEST_IMAGES, _TEST_SEED)[0])

    def test(self) -> Images:
        images = _all()
        return images.subset(split(images.labels, TEST_IMAGES, _TEST_SEED)[1])


def _all() -> Images:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    pixels = np.rint(values * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)  # values are 0 to 16
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)))
