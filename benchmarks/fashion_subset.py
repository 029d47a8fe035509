"""600 random images of each class of Fashion-MNIST as an npz file: its table takes two cores an hour.

    python -m benchmarks.fashion_subset DATA FILE.npz

DATA is the folder in which torchvision finds FashionMNIST; the test split is kept whole.
"""

from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

from benchmarks.arguments import Parser, errors_in_one_line
from sweetspot.errors import UserError

_PER_CLASS = 600


def main() -> None:
    parser = Parser(description="Write 600 random images of each class of Fashion-MNIST as an npz file.")
    parser.add_argument("data", type=Path)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    try:
        train, test = (FashionMNIST(given.data, train=is_train) for is_train in (True, False))
    except RuntimeError:
        raise UserError(f"no FashionMNIST/raw in {given.data}: give its parent") from None
    images, labels = train.data.numpy(), train.targets.numpy()
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(np.flatnonzero(labels == k))[:_PER_CLASS] for k in range(len(train.classes))]
    kept = np.sort(np.concatenate(drawn))
    np.savez_compressed(
        given.file,
        train_x=images[kept][..., None],
        train_y=labels[kept],
        test_x=test.data.numpy()[..., None],
        test_y=test.targets.numpy(),
        classes=np.array(train.classes),
    )


if __name__ == "__main__":
    with errors_in_one_line():
        main()
