import subprocess
import sys
from pathlib import Path

import pytest

from sweetspot.data import describe, info, names, open_dataset
from sweetspot.errors import UserError
from sweetspot.store.url import data_folder


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys, sweetspot.data as d; [d.describe(n) for n in d.names()];"
        "print(*{'torch', 'torchvision', 'sklearn', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


BUILT_IN = ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "stl10", "tiny_imagenet"]
BY_PATH = {"imagefolder:PATH": "one folder per class", "npz:PATH": ".npz"}


def test_the_built_in_data_sets_and_the_forms_are_known() -> None:
    known = [*BUILT_IN, *BY_PATH]
    assert [name for name in names() if name in known] == known


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_data_set_is_described_before_it_is_opened(name: str) -> None:
    about = info(name)
    assert about is not None
    assert about.name == name
    assert f"{about.classes} classes" in describe(name)
    assert "\n" not in describe(name)


@pytest.mark.parametrize("form", BY_PATH)
def test_nothing_is_known_of_files_before_they_are_opened(form: str) -> None:
    name = form.replace("PATH", "somewhere")
    assert info(name) is None
    assert describe(name) == describe(form)
    assert BY_PATH[form] in describe(form)


@pytest.mark.parametrize("name", ["digits", "npz:somewhere.npz"])
def test_images_that_are_not_in_folders_are_not_resized(name: str) -> None:
    said = f"data.image_size = 32: only the images of imagefolder:PATH are resized; those of {name} have their own size"
    with pytest.raises(UserError, match=said):
        open_dataset(name, data_folder(), image_size=32)


@pytest.mark.parametrize("ask", [info, describe, lambda name: open_dataset(name, data_folder())])
def test_an_unknown_name_is_refused_with_the_nearest_one(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(UserError, match="unknown data set 'cifar_100': did you mean 'cifar100'") as caught:
        ask("cifar_100")
    assert "npz:PATH" in str(caught.value)


def test_an_unknown_prefix_says_which_there_is() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'zip:a\.zip': the forms with a colon are imagefolder:PATH"):
        open_dataset("zip:a.zip", data_folder())


# -- data sets of other packages --------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution with three data sets, one of which works."""
    (tmp_path / "fruit_data.py").write_text(
        "import torch\n"
        "from sweetspot.data.images import DataSet, Images\n"
        "class Fruit(DataSet):\n"
        "    name, classes = 'fruit', ('apple', 'pear', 'plum')\n"
        "    def __init__(self, root): self.root = root\n"
        "    def train(self): return Images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.arange(3))\n"
        "    test = train\n"
        "def nothing(root): return None\n"
    )
    about = tmp_path / "fruit-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fruit\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[sweetspot.datasets]\nfruit = fruit_data:Fruit\nmissing = no_such_module:Fruit\nnothing = fruit_data:nothing\n"
        "digits = fruit_data:Fruit\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fruit_data", raising=False)
    return tmp_path


def test_another_package_adds_a_data_set(package: Path) -> None:
    dataset = open_dataset("fruit", package)
    assert dataset.classes == ("apple", "pear", "plum")
    assert len(dataset.train()) == 3
    assert dataset.root == package  # type: ignore[attr-defined]
    assert "fruit" in names()
    assert describe("fruit") == "added by fruit_data:Fruit"
    with pytest.raises(UserError, match="those of fruit have their own size"):
        open_dataset("fruit", package, image_size=32)
    assert info("fruit") is None


@pytest.mark.usefixtures("package")
def test_a_package_cannot_take_a_built_in_name() -> None:
    assert open_dataset("digits", data_folder()).classes == tuple("0123456789")
    assert names().count("digits") == 1


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "data set 'missing' could not be loaded from no_such_module:Fruit: No module named"),
        ("nothing", "data set 'nothing': fruit_data:nothing returned a NoneType, not a"),
    ],
)
def test_a_broken_addition_is_named(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_dataset(name, data_folder())
