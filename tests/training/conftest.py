"""Real images to train on."""

import pytest
import torch
from torch import Tensor

from sweetspot.data.digits import Digits
from sweetspot.data.views import Normalisation, normalise
from sweetspot.store.url import data_folder


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """The training digits as a network is given them: images float32 (1397, 1, 8, 8), labels int64 (1397,)."""
    torch.set_num_threads(1)
    images = Digits(data_folder()).train()
    return normalise(images.images, Normalisation.of(images)), images.labels
