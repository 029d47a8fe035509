"""Names to networks: sizes known from the literature, sound gradients, and models from outside."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sweetspot.errors import UserError
from sweetspot.models import build, count_parameters, describe, names, registry
from sweetspot.models.cifar_resnet import ResidualBlock
from sweetspot.models.plain import PlainBlock
from sweetspot.models.wide_resnet import PreActivationBlock

# Counted at 100 classes and 32x32 colour images: the networks of the distillation literature.
KNOWN_COUNTS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn-16-1": 180_916,
    "wrn-16-2": 703_284,
    "wrn-40-1": 569_780,
    "wrn-40-2": 2_255_156,
}
Install = Callable[..., None]
BUILT_IN = tuple(registry._BUILT_IN)
CONVOLUTIONAL = tuple(name for name in BUILT_IN if not name.startswith("mlp"))


def small(name: str, seed: int = 0) -> nn.Module:
    """The network for ten classes of grey 8x8 images."""
    torch.manual_seed(seed)
    return build(name, classes=10, channels=1, image_size=8)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "count"), KNOWN_COUNTS.items())
def test_parameter_counts_are_those_of_the_literature(name: str, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(build(name, classes=100, channels=3, image_size=32)) == count


def test_frozen_parameters_do_not_count() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 6


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_description_states_the_size_that_the_network_has(name: str) -> None:
    with torch.device("meta"):
        count = count_parameters(build(name, classes=100, channels=3, image_size=32))
    number, unit = describe(name).rpartition("(")[2].removesuffix(" parameters)").split()
    assert f"{count / {'k': 1e3, 'M': 1e6}[unit]:.{len(number.partition('.')[2])}f}" == number


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_parameter_gets_a_finite_gradient_at_the_smallest_image(name: str) -> None:
    size = registry._BUILT_IN[name].smallest_image
    torch.manual_seed(0)
    model = build(name, classes=7, channels=3, image_size=size)
    logits = model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 7)
    torch.autograd.backward(nn.functional.cross_entropy(logits, torch.tensor([0, 6])))
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", ["resnet8", "wrn-16-1", "plain8", "convnet"])
def test_one_pixel_less_than_the_smallest_image_would_leave_weights_that_never_act(name: str) -> None:
    spec = registry._BUILT_IN[name]

    def idle_taps(size: int) -> int:
        torch.manual_seed(0)
        model = registry._load(name, spec)(classes=10, channels=1, image_size=size, **spec.options)
        model(torch.randn(64, 1, size, size)).logsumexp(1).sum().backward()
        kernels = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
        gradients = [kernel.grad for kernel in kernels if kernel.grad is not None]
        assert len(gradients) == len(kernels)
        return sum(int((gradient.abs().amax(dim=(0, 1)) == 0).sum()) for gradient in gradients)

    assert idle_taps(spec.smallest_image) == 0
    assert idle_taps(spec.smallest_image - 1) > 0


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_too_small_an_image_is_refused_in_one_line_that_says_what_to_do(name: str) -> None:
    with pytest.raises(UserError, match=r"needs images of at least .* use larger images") as caught:
        build(name, classes=10, channels=1, image_size=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [(1, 1, 8), (10, 0, 8), (10, 1, 0)])
def test_senseless_sizes_are_refused(sizes: tuple[int, int, int]) -> None:
    classes, channels, image_size = sizes
    with pytest.raises(ValueError, match="no network for"):
        build("mlp", classes=classes, channels=channels, image_size=image_size)


@pytest.mark.parametrize("depth", [2, 9, 21])
@pytest.mark.parametrize("source", ["cifar_resnet:cifar_resnet", "plain:plain", "wide_resnet:wide_resnet"])
def test_a_depth_that_does_not_divide_into_stages_is_refused(source: str, depth: int) -> None:
    function = registry._load("any", registry.ModelSpec(f"sweetspot.models.{source}", ""))
    options = {"factor": 1} if source.startswith("wide") else {}
    with pytest.raises(ValueError, match=f"not {depth}"):
        function(classes=10, channels=1, image_size=8, depth=depth, **options)


@pytest.mark.parametrize("name", BUILT_IN)
def test_equal_seeds_give_equal_weights_and_others_do_not(name: str) -> None:
    with_seed_0, again, with_seed_1 = (small(name, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(with_seed_0[key], again[key]) for key in with_seed_0)
    assert any(not torch.equal(with_seed_0[key], with_seed_1[key]) for key in with_seed_0)


@pytest.mark.parametrize("name", ["resnet20", "wrn-16-2", "plain20", "convnet"])
def test_convolutions_start_as_he_et_al_prescribe_and_batchnorm_as_the_identity(name: str) -> None:
    for module in small(name).modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            if module.weight.numel() >= 2000:
                assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()


@pytest.mark.parametrize("name", ["resnet8", "resnet8x4", "wrn-16-2", "plain8", "convnet", "mlp"])
def test_the_response_does_not_depend_on_the_memory_layout_nor_on_the_call(name: str) -> None:
    model = small(name).eval()
    images = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        response = model(images)
        assert torch.equal(response, model(images))
        model = model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), response)


def silence_a_block(model: nn.Module) -> nn.Module:
    """Zeroes what the convolutions of the second block give: only a shortcut can still pass what comes in."""
    block = model.get_submodule("stages.0.1")
    assert isinstance(block, ResidualBlock | PreActivationBlock | PlainBlock)
    last = block.conv2 if isinstance(block, PreActivationBlock) else block.bn2
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return model.eval()


@pytest.mark.parametrize("name", ["plain14", "plain20", "plain110"])
def test_nothing_passes_a_silenced_block_of_a_plain_network(name: str) -> None:
    with torch.no_grad():
        first, second = silence_a_block(small(name))(torch.randn(2, 1, 8, 8))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["resnet14", "resnet32x4", "wrn-16-1", "wrn-40-2"])
def test_the_shortcut_passes_a_silenced_block_of_a_residual_network(name: str) -> None:
    with torch.no_grad():
        first, second = silence_a_block(small(name))(torch.randn(2, 1, 8, 8))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_a_plain_network_is_the_resnet_without_its_projections(depth: int) -> None:
    with torch.device("meta"):
        residual, plain = (
            build(f"{kind}{depth}", classes=10, channels=3, image_size=32) for kind in ("resnet", "plain")
        )
    projections = {name for name, _ in residual.named_parameters() if ".shortcut." in name}
    assert {name for name, _ in residual.named_parameters()} - projections == {
        name for name, _ in plain.named_parameters()
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["resnet8", "wrn-16-2", "plain8", "convnet", "mlp"])
def test_a_step_neither_waits_for_the_gpu_nor_needs_a_random_order_of_sums(name: str) -> None:
    model, images = small(name).cuda(), torch.randn(8, 1, 8, 8, device="cuda")
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        model(images).sum().backward()  # the libraries' own set-up may wait once
        torch.cuda.set_sync_debug_mode("error")
        model(images).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.use_deterministic_algorithms(deterministic)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown model 'resnet65': did you mean 'resnet56'"):
        build("resnet65", classes=10, channels=1, image_size=8)
    with pytest.raises(UserError, match="did you mean 'wrn-40-2'"):
        describe("wrn402")


def test_names_come_by_family_and_size_and_each_has_one_line_of_description() -> None:
    assert names().index("resnet8") < names().index("resnet14") < names().index("resnet110") < names().index("plain8")
    assert all(describe(name) and "\n" not in describe(name) for name in names())


def test_listing_the_models_does_not_import_torch() -> None:
    program = (
        "import sys, sweetspot.models as models; [models.describe(name) for name in models.names()]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


class TestModelsFromOutside:
    """Real distributions: a module and its metadata in a folder on the import path."""

    @pytest.fixture
    def install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
        def install(distribution: str, model: str, target: str, source: str = "") -> None:
            module = target.partition(":")[0]
            if source:
                (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
            metadata = tmp_path / f"{distribution}-1.0.dist-info"
            metadata.mkdir()
            (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
            (metadata / "entry_points.txt").write_text(f"[sweetspot.models]\n{model} = {target}\n")
            monkeypatch.delitem(sys.modules, module, raising=False)
            monkeypatch.syspath_prepend(tmp_path)

        return install

    def test_one_is_listed_described_and_built(self, install: Install) -> None:
        source = (
            "from torch import nn\n"
            "def tiny(classes, channels, image_size):\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))\n"
        )
        install("acme", "acme-tiny", "acme_nets:tiny", source)
        assert names()[-1] == "acme-tiny"
        assert "acme" in describe("acme-tiny")
        assert "acme_nets" not in sys.modules, "listing must not import what others have written"
        assert build("acme-tiny", classes=5, channels=2, image_size=3)(torch.zeros(4, 2, 3, 3)).shape == (4, 5)

    def test_a_built_in_name_is_refused(self, install: Install) -> None:
        install("acme", "resnet8", "acme_nets:tiny")
        with pytest.raises(UserError, match="'resnet8' of the distribution 'acme' clashes with the one of sweetspot"):
            names()

    def test_a_name_that_two_distributions_bear_is_refused(self, install: Install) -> None:
        install("acme", "tiny", "acme_nets:tiny")
        install("zenith", "tiny", "zenith_nets:tiny")
        with pytest.raises(UserError, match=r"distribution '(acme|zenith)' clashes with the one of '?(acme|zenith)"):
            build("tiny", classes=5, channels=2, image_size=3)

    @pytest.mark.parametrize(
        ("target", "source", "message"),
        [
            ("acme_nets:tiny", "", "cannot be imported"),
            ("acme_nets:tiny", "import there_is_no_such_module", "cannot be imported"),
            ("acme_nets:tiny", "large = 1", "cannot be imported"),
            ("acme_nets:tiny", "tiny = 1", "cannot be called with"),
            ("acme_nets:tiny", "def tiny(width): ...", "cannot be called with"),
            ("acme_nets:tiny", "def tiny(classes, channels, image_size): ...", "is a NoneType, not a torch.nn.Module"),
        ],
    )
    def test_one_that_does_not_keep_the_contract_is_named(
        self, install: Install, target: str, source: str, message: str
    ) -> None:
        install("acme", "tiny", target, source)
        with pytest.raises(UserError, match=f"model 'tiny' of the distribution 'acme' {message}"):
            build("tiny", classes=5, channels=2, image_size=3)
