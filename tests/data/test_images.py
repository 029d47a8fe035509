import pytest
import torch

from sweetspot.data.images import Images, content_hash


@pytest.fixture
def images() -> Images:
    pixels = torch.arange(5 * 3 * 4 * 4).remainder(256).to(torch.uint8).view(5, 3, 4, 4)
    return Images(pixels, torch.tensor([0, 1, 2, 0, 1]))


CLASSES = ("a", "b", "c")


def test_images_know_their_shape(images: Images) -> None:
    assert (len(images), images.channels, images.image_size, images.device) == (5, 3, 4, torch.device("cpu"))


def test_a_subset_keeps_the_order_of_its_index(images: Images) -> None:
    subset = images.subset(torch.tensor([4, 0]))
    assert torch.equal(subset.images, images.images[[4, 0]])
    assert subset.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 5, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64, device="meta")),
    ],
)
def test_images_of_a_wrong_kind_are_refused(pixels: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be|are on"):
        Images(pixels, labels)


def test_the_hash_does_not_depend_on_how_the_images_lie_in_memory(images: Images) -> None:
    strided = Images(images.images.to(memory_format=torch.channels_last), images.labels)
    assert content_hash(images, CLASSES) == content_hash(strided, list(CLASSES))


def test_the_hash_changes_with_pixels_labels_classes_and_shape(images: Images) -> None:
    pixels, labels = images.images.clone(), images.labels.clone()
    pixels[0, 0, 0, 0] += 1
    labels[0] = 2
    hashes = {
        content_hash(images, CLASSES),
        content_hash(Images(pixels, images.labels), CLASSES),
        content_hash(Images(images.images, labels), CLASSES),
        content_hash(images, ("a", "b", "d")),
        content_hash(images, ("a", "b", "c", "d")),
        content_hash(images.subset(torch.arange(4)), CLASSES),
        content_hash(Images(images.images.view(15, 1, 4, 4), images.labels.repeat(3)), CLASSES),
    }
    assert len(hashes) == 7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_hash_does_not_depend_on_the_device(images: Images) -> None:
    assert content_hash(images, CLASSES) == content_hash(images.to("cuda"), CLASSES)
