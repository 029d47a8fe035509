import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import functional as tv

from sweetspot.data.images import Images
from sweetspot.data.seeding import seed_of
from sweetspot.data.views import EpochViews, Normalisation, Placement, normalise, padding_of, placement_of, view
from sweetspot.errors import UserError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def some_images(n: int = 40, channels: int = 3, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


# -- crop and flip ----------------------------------------------------------------------------------------------------


def epoch_views(
    images: torch.Tensor, augmentation: tuple[str, ...], seed: int, epoch: int, device: str = "cpu"
) -> EpochViews:
    """Not normalised: each pixel stays what it is."""
    size, channels = images.shape[-1], images.shape[1]
    padded = F.pad(images, (padding_of(size, augmentation),) * 4).to(device)
    placement = placement_of(len(images), size, augmentation, seed, epoch, padded.device)
    return EpochViews(padded, size, placement, Normalisation((0.0,) * channels, (1 / 255,) * channels))


def augment(
    images: torch.Tensor, augmentation: tuple[str, ...], seed: int, epoch: int, device: str = "cpu"
) -> torch.Tensor:
    """All views of an epoch, uint8."""
    views = epoch_views(images, augmentation, seed, epoch, device)
    return view(views.padded, views.placement, slice(None), views.image_size)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("channels", "size", "padding"), [(3, 32, 4), (1, 28, 3), (1, 8, 1)])
def test_each_view_is_torchvisions_crop_at_the_same_offset_and_its_flip(
    channels: int, size: int, padding: int, device: str
) -> None:
    offsets = [(y, x, m) for y in range(2 * padding + 1) for x in range(2 * padding + 1) for m in (False, True)]
    images = some_images(len(offsets), channels, size)
    top, left, mirrored = torch.tensor(offsets).T.to(device)
    padded = F.pad(images, (padding,) * 4).to(device)
    views = view(padded, Placement(top, left, mirrored == 1), slice(None), size).cpu()
    for image, shown, (y, x, m) in zip(images, views, offsets, strict=True):
        expected = tv.crop(tv.pad(image, [padding]), y, x, size, size)
        assert torch.equal(shown, tv.hflip(expected) if m else expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [8, 32])
def test_an_epoch_of_views_is_torchvisions_pad_crop_and_flip_of_each_image(size: int, device: str) -> None:
    images = some_images(60, size=size)
    padding = size // 8
    draws = torch.Generator().manual_seed(seed_of(3, 5, "crop"))
    top, left = torch.randint(2 * padding + 1, (2, 60), generator=draws).tolist()
    mirrored = torch.randint(2, (60,), generator=torch.Generator().manual_seed(seed_of(3, 5, "flip"))).tolist()
    views = augment(images, ("crop", "flip"), 3, 5, device).cpu()
    for i, image in enumerate(images):
        expected = tv.crop(tv.pad(image, [padding]), top[i], left[i], size, size)
        assert torch.equal(views[i], tv.hflip(expected) if mirrored[i] else expected)


def test_views_are_uint8_and_of_the_same_shape() -> None:
    views = augment(some_images(), ("crop", "flip"), 0, 0)
    assert (views.dtype, views.shape) == (torch.uint8, (40, 3, 32, 32))


def test_every_offset_and_both_directions_are_drawn_equally_often() -> None:
    # one bright pixel in the middle tells where each image went
    images = torch.zeros(8100, 1, 32, 32, dtype=torch.uint8)
    images[:, :, 16, 16] = 1
    y, x = augment(images, ("crop",), 0, 0)[:, 0].nonzero()[:, 1:].T
    counts = ((y - 12) * 9 + (x - 12)).bincount(minlength=81)
    assert 50 < int(counts.min()) <= int(counts.max()) < 150  # 100 expected, standard deviation 10
    x = augment(images, ("flip",), 0, 0)[:, 0].nonzero()[:, 2]
    assert set(x.tolist()) == {15, 16}
    assert abs(int((x == 15).sum()) - 4050) < 225  # five standard deviations


def test_views_follow_from_seed_and_epoch_alone() -> None:
    images = some_images()
    torch.manual_seed(1)
    first = augment(images, ("crop", "flip"), 0, 1)
    torch.manual_seed(2)
    assert torch.equal(first, augment(images, ("crop", "flip"), 0, 1))
    assert not torch.equal(first, augment(images, ("crop", "flip"), 0, 2))
    assert not torch.equal(first, augment(images, ("crop", "flip"), 1, 1))


def test_making_views_leaves_the_global_generator_and_the_images_alone() -> None:
    images = some_images()
    before, state = images.clone(), torch.get_rng_state()
    augment(images, ("crop", "flip"), 0, 0)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_crops_are_the_same_with_and_without_flips() -> None:
    images = some_images()
    images = images.maximum(images.flip(-1))  # symmetric images: a flip only mirrors the offset
    cropped, both = augment(images, ("crop",), 0, 0), augment(images, ("crop", "flip"), 0, 0)
    assert all(torch.equal(b, c) or torch.equal(b, c.flip(-1)) for b, c in zip(both, cropped, strict=True))


def test_a_flip_before_a_crop_is_torchvisions_flip_then_crop() -> None:
    images = some_images(60)
    top, left = torch.randint(9, (2, 60), generator=torch.Generator().manual_seed(seed_of(3, 5, "crop"))).tolist()
    mirrored = torch.randint(2, (60,), generator=torch.Generator().manual_seed(seed_of(3, 5, "flip"))).tolist()
    views = augment(images, ("flip", "crop"), 3, 5)
    for i, image in enumerate(images):
        flipped = tv.hflip(image) if mirrored[i] else image
        assert torch.equal(views[i], tv.crop(tv.pad(flipped, [4]), top[i], left[i], 32, 32))


def test_without_augmentation_the_views_are_the_images_themselves() -> None:
    images = some_images()
    assert torch.equal(augment(images, (), 0, 0), images)


@pytest.mark.parametrize("device", DEVICES)
def test_views_that_are_asked_for_in_another_order_are_the_same_views(device: str) -> None:
    views = epoch_views(some_images(), ("crop", "flip"), 0, 1, device)
    everything = views[:]
    assert everything.dtype == torch.float32
    assert everything.shape == views.shape == (40, 3, 32, 32)
    assert everything.is_contiguous(memory_format=torch.channels_last)
    order = torch.randperm(40).to(device)
    assert torch.equal(views[order], everything[order])
    assert torch.equal(views[7:9], everything[7:9])
    assert torch.equal(torch.cat(list(views.split(16))), everything)
    assert [len(part) for part in views.split(16)] == [16, 16, 8]
    assert torch.equal(everything.round().byte().cpu(), augment(some_images(), ("crop", "flip"), 0, 1))


def test_an_unknown_augmentation_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="unknown augmentation 'flipp': did you mean 'flip'"):
        augment(some_images(), ("flipp",), 0, 0)


# -- normalisation ----------------------------------------------------------------------------------------------------


def as_images(pixels: torch.Tensor) -> Images:
    return Images(pixels, torch.zeros(len(pixels), dtype=torch.int64))


@pytest.mark.parametrize("device", DEVICES)
def test_mean_and_deviation_are_those_of_each_channel(device: str) -> None:
    images = some_images()
    images[:, 1] //= 2
    found = Normalisation.of(as_images(images.to(device)))
    values = images.double() / 255
    assert found.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert found.std == pytest.approx(values.std((0, 2, 3), correction=0).tolist(), rel=1e-12)


def test_the_order_of_the_images_does_not_change_a_bit_of_it() -> None:
    images = some_images()
    assert Normalisation.of(as_images(images)) == Normalisation.of(as_images(images.flip(0)))


def test_a_channel_that_never_changes_stays_finite() -> None:
    images = torch.full((4, 1, 8, 8), 51, dtype=torch.uint8)
    normalisation = Normalisation.of(as_images(images))
    assert normalisation == Normalisation((0.2,), (1.0,))
    assert float(normalise(images, normalisation).abs().max()) < 1e-6


@pytest.mark.parametrize("device", DEVICES)
def test_normalised_images_are_torchvisions(device: str) -> None:
    images = some_images()
    normalisation = Normalisation.of(as_images(images))
    expected = tv.normalize(images.float() / 255, list(normalisation.mean), list(normalisation.std))
    torch.testing.assert_close(normalise(images.to(device), normalisation).cpu(), expected, rtol=1e-5, atol=1e-6)


def test_normalised_images_lie_channels_last_in_the_dtype_asked_for() -> None:
    images = some_images()
    normalisation = Normalisation.of(as_images(images))
    assert normalise(images, normalisation).dtype == torch.float32
    half = normalise(images, normalisation, torch.bfloat16)
    assert half.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(half, normalise(images, normalisation).to(torch.bfloat16))


def test_normalising_leaves_the_images_alone() -> None:
    images = some_images()
    before = images.clone()
    normalise(images, Normalisation.of(as_images(images)))
    assert torch.equal(images, before)
