"""The networks of torchvision and timm: by name, never pretrained, adapted to small images, or refused in one line."""

import copy
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sweetspot import config
from sweetspot.errors import UserError
from sweetspot.models import build, count_parameters, describe, names
from sweetspot.models.libraries import _plan
from sweetspot.models.stem import Stem, accept_channels, adapt_stem, find_stem, patch_for
from sweetspot.training.engine import MidEpoch, Training, random_state, recompute_batchnorm
from sweetspot.training.optimizers import optimizer
from sweetspot.training.resume import load_training_state, training_state
from sweetspot.training.weights import load_weights, to_bytes

CPU = torch.device("cpu")
SAMPLE = [
    ("torchvision:mobilenet_v3_small", 28, 1),
    ("torchvision:shufflenet_v2_x0_5", 32, 3),
    ("torchvision:googlenet", 8, 2),  # auxiliary heads
    ("timm:resnet10t", 8, 3),  # a stem of three convolutions
    ("timm:test_vit", 28, 1),
    ("timm:test_coatnet", 32, 3),  # a size that is fixed, behind a stem
    ("timm:test_convnext", 64, 3),
    ("timm:test_vit", 80, 3),
]


@pytest.mark.parametrize(("name", "size", "channels"), SAMPLE)
def test_a_network_of_a_library_gives_logits_and_every_parameter_learns(name: str, size: int, channels: int) -> None:
    model = build(name, classes=7, channels=channels, image_size=size)
    logits = model(torch.randn(4, channels, size, size))
    assert logits.shape == (4, 7)
    torch.autograd.backward(nn.functional.cross_entropy(logits, torch.tensor([0, 6, 2, 3])))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("size", "count"), [(32, 11_173_962), (64, 11_181_642)])
def test_resnet18_has_the_stem_of_the_literature_for_small_images_and_its_own_for_others(size: int, count: int) -> None:
    model = build("torchvision:resnet18", classes=10, channels=3, image_size=size)
    assert count_parameters(model) == count
    assert isinstance(model.get_submodule("maxpool"), nn.Identity if size == 32 else nn.MaxPool2d)
    before_the_last_pool: list[Tensor] = []
    model.get_submodule("layer4").register_forward_hook(lambda _m, _i, out: before_the_last_pool.append(out))
    model(torch.randn(2, 3, size, size))
    assert before_the_last_pool[0].shape[2:] == (4, 4) if size == 32 else (2, 2)


@pytest.mark.parametrize(
    ("image_size", "own", "patch"),
    [(32, 16, 4), (28, 16, 4), (8, 16, 1), (32, 14, 2), (48, 32, 6), (31, 16, 1), (32, 4, 1)],
)
def test_patches_are_a_quarter_and_at_least_seven_a_side(image_size: int, own: int, patch: int) -> None:
    assert patch_for(image_size, own) == patch


def _stem_of(*modules: nn.Module) -> Stem:
    return find_stem(nn.Sequential(*modules), torch.zeros(2, 3, 32, 32))


class _Branches(nn.Module):
    """A block whose shortcut pools."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut = nn.AvgPool2d(2)
        self.conv = nn.Conv2d(8, 8, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.conv(x)
        return out


def test_a_stem_is_the_strided_convolution_that_sees_the_image_and_the_pool_that_follows() -> None:
    strided, plain, pool = nn.Conv2d(3, 8, 7, 2, 3), nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(3, 2, 1)
    assert _stem_of(strided, nn.ReLU(), pool) == Stem(("0",), "2", 4)
    assert _stem_of(strided, plain, plain, pool) == Stem(("0",), "3", 4)
    assert _stem_of(strided, nn.ReLU(inplace=True), pool, nn.Linear(1, 1)).pool == "2", "a network that fails has one"
    assert _stem_of(nn.Conv2d(3, 8, 3, padding=1), pool) == Stem(), "without a stride there is nothing to adapt"
    assert _stem_of(strided, plain, plain, plain, pool).pool is None, "that pool comes after the stem"
    assert _stem_of(strided, _Branches()).pool is None, "that pool is a block's"


@pytest.mark.parametrize("kernel", [2, 3, 4, 7, 11])
def test_an_adapted_convolution_keeps_the_size_of_the_image_and_the_variance_of_what_it_gives(kernel: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 512, kernel, stride=2, padding=kernel // 2, bias=False))
    images = torch.randn(16, 3, 24, 24)
    before = network(images)[:, :, 4:-4, 4:-4].std().detach()
    adapt_stem(network, find_stem(network, images))
    after = network(images)
    assert after.shape[2:] == (24, 24)
    assert float(after.std().detach() / before) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channels_than_three_keep_the_variance_too(channels: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 512, 3, bias=False))
    before = network(torch.randn(16, 3, 8, 8)).std()
    accept_channels(network, channels)
    assert float(network(torch.randn(16, channels, 8, 8)).std().detach() / before.detach()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:test_vit"])
def test_initial_weights_follow_from_the_seed_whatever_was_built_before(name: str) -> None:
    def weights() -> dict[str, Tensor]:
        torch.manual_seed(3)
        return build(name, classes=10, channels=1, image_size=8).state_dict()

    _plan.cache_clear()  # the first in a process is tried out
    first, second = weights(), weights()
    assert all(torch.equal(first[key], second[key]) for key in first)
    torch.manual_seed(4)
    other = build(name, classes=10, channels=1, image_size=8).state_dict()
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet19", r"did you mean 'torchvision:resnet18'\?.* the \d+ names of torchvision .* are in "),
        ("torchvision:fasterrcnn_resnet50_fpn", "unknown model"),  # it detects, and classifies nothing
        ("timm:resnet18.a1_in1k", r"did you mean 'timm:resnet18'\?"),
        ("timm:hf-hub:timm/resnet18", "unknown model"),  # would be fetched
        ("timm:", "unknown model 'timm:'"),
        ("keras:resnet50", "unknown model 'keras:resnet50': .*timm:NAME, torchvision:NAME"),
        ("torchvision:inception_v3", "does not work on grey 8x8 images: .*; use larger images or another model"),
        ("torchvision:mnasnet0_5", "its weights alone cannot be loaded"),
        ("timm:crossvit_9_240", "cannot be built for 8x8 images"),
        ("timm:vit_wee_patch16_reg1_gap_256x", r"did you mean 'timm:vit_wee_patch16_reg1_gap_256'\?"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line_that_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(name, classes=10, channels=1, image_size=8)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_without_timm_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # to Python, a package that is not there
    with pytest.raises(UserError, match=r"needs timm, which is not installed: in a clone \./uvw sync --extra"):
        build("timm:resnet18", classes=10, channels=1, image_size=8)
    assert "(not installed: in a clone ./uvw sync --extra timm, for another " in describe("timm:NAME")


def test_both_forms_are_listed_with_a_line_on_the_stem() -> None:
    for form in ("torchvision:NAME", "timm:NAME"):
        assert form in names()
        assert "stem is adapted for images under 64 pixels" in describe(form)
    assert describe("torchvision:resnet18").startswith("resnet18 of torchvision")
    with pytest.raises(UserError, match="did you mean"):
        describe("torchvision:resnet81")


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:test_vit", "timm:test_efficientnet"])
def test_weights_are_stored_and_loaded(name: str) -> None:
    model, other = (build(name, classes=10, channels=3, image_size=8) for _ in range(2))
    images = torch.randn(2, 3, 8, 8)
    recompute_batchnorm(
        model.to(memory_format=torch.channels_last), torch.randn(8, 3, 8, 8), torch.arange(8), 4, "float32"
    )  # type: ignore[call-overload]
    load_weights(other, to_bytes(model.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(images), copy.deepcopy(model).eval()(images), rtol=1e-3, atol=1e-3)


def test_weights_that_another_version_made_are_refused_in_one_line() -> None:
    """A network of other shapes under the same name, which a new version of a library may have."""
    today = build("timm:test_vit", classes=10, channels=3, image_size=32)
    then = build("timm:test_vit", classes=10, channels=3, image_size=64)
    with pytest.raises(UserError, match=r"not of the 'timm:test_vit' that timm [\d.]+ builds: .* install the version"):
        load_weights(copy.deepcopy(today), to_bytes(then.state_dict()))


def test_one_with_dropout_that_is_interrupted_equals_one_that_is_not() -> None:
    images, labels = torch.randn(64, 1, 8, 8), torch.arange(64) % 10

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = build("torchvision:mobilenet_v3_small", classes=10, channels=1, image_size=8)
        assert any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
        return model, optimizer(model, config.SGD(lr=0.1))

    def train(
        model: nn.Module,
        optim: torch.optim.Optimizer,
        start: MidEpoch | None = None,
        on_step: Callable[[int, Tensor], None] = lambda step, loss: None,
    ) -> float:
        training = Training(model, optim, nn.functional.cross_entropy, batch_size=16, precision="float32", seed=5)
        return training.epoch(images, (labels,), [0.1] * 4, 0, start=start, on_step=on_step)

    saved: list[bytes] = []

    def save(step: int, loss: Tensor) -> None:
        if step == 2:
            saved.append(training_state(model, optim, loss, random_state(CPU)))

    model, optim = fresh()
    loss = train(model, optim, on_step=save)
    again, its_optimizer = fresh()
    torch.rand(7)
    assert train(again, its_optimizer, load_training_state(saved[0], again, its_optimizer, 2)) == loss
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
