"""Study files: the built-in ones, the user's own, and what the command line puts in place of their values."""

from pathlib import Path
from typing import Any

import pytest

from sweetspot.config import Constant, StudyConfig
from sweetspot.data.registry import info
from sweetspot.errors import UserError
from sweetspot.models import build
from sweetspot.study_file import Draft, built_in, default_name, draft_for, find, headline, is_study, studies_folder

EXAMPLE = """\
[data]
dataset = "cifar100"
validation = 5000                 # images held out of the training set, stratified; below 1: a fraction of it
augmentation = ["crop", "flip"]
[teacher]
model = "resnet56"
optimizer = { name = "sgd", lr = 0.1, momentum = 0.9, nesterov = true, weight_decay = 5e-4 }
lr_rule = { name = "linear", batch_size = 128, cap = 4 }  # lr above is for this batch size: none | sqrt | linear
schedule = { name = "wsd", warmup = 1, decay = 0.2 } # warm-up at most a tenth of the shortest rung
probe_temperature = 4.0
[student]
model = "resnet20"
epochs = 60
batch_size = 128
temperature = 4.0
alpha = 0.9
replicates = { min = 1, max = 3 }
[search]
batch_size = [64, 128, 256, 512, 1024]
epochs = { low = 10, high = 240, rungs = 10 }        # geometric, rounded to whole epochs, both ends included; or a list
trials = 40
sampler = "cost-aware"
[pruner]
name = "similarity-entropy"
[confirm]
finalists = 1
teachers = 0                      # fresh teacher seeds per arm; 0: "this teacher" only
seeds = 5                         # fresh student seeds per teacher
margin = 0.002                    # smaller differences do not matter
[run]                             # how, not what
checkpoint_seconds = 60
deterministic = false
heartbeat_seconds = 15
grace_seconds = 900               # how long a silent worker on another machine keeps its trial
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(draft: Draft) -> str:
    with pytest.raises(UserError) as error:
        draft.config()
    return str(error.value)


# -- files ----------------------------------------------------------------------------------------------------------


def test_the_example_of_a_study_file_says_what_the_defaults_are(tmp_path: Path) -> None:
    assert Draft.read(written(tmp_path, EXAMPLE)).config() == StudyConfig()


def test_an_empty_file_is_the_study_of_the_defaults(tmp_path: Path) -> None:
    assert Draft.read(written(tmp_path, "")).config() == StudyConfig()


def test_a_syntax_error_names_file_line_and_column(tmp_path: Path) -> None:
    path = written(tmp_path, "[data]\nvalidation = \n")
    with pytest.raises(UserError, match="line 2, column") as error:
        Draft.read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"x = " + b"[" * 9999, b"x = " + b"9" * 9999], ids=["bytes", "deep", "long"]
)
def test_what_is_no_toml_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text)
    with pytest.raises(UserError, match="is not a TOML file"):
        Draft.read(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot read {tmp_path}"):
        Draft.read(tmp_path)


@pytest.mark.parametrize("study", ["mine.toml", "./nowhere/mine", "/", "x" * 5000 + ".toml"])
def test_a_study_file_that_is_not_there_is_named(study: str) -> None:
    with pytest.raises(UserError, match="study file"):
        find(study)


def test_a_misspelt_study_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown study 'digit': did you mean 'digits'"):
        find("digit")


def test_a_study_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    assert find("digits") == studies_folder() / "digits.toml"
    assert find(str(path)) == path
    assert is_study("digits")
    assert is_study(str(path))
    assert not is_study("npz:digits")


# -- which file, which name -----------------------------------------------------------------------------------------


def test_a_data_set_has_its_own_study_and_others_have_the_default_one() -> None:
    assert draft_for("digits", None).config() == Draft.read(find("digits")).config()
    other = draft_for("npz:mine.npz", None).config()
    assert other.data.dataset == "npz:mine.npz"
    assert other.teacher == Draft.read(find("default")).config().teacher


def test_a_data_set_replaces_that_of_the_study() -> None:
    config = draft_for("npz:mine.npz", "digits").config()
    assert (config.data.dataset, config.teacher.model) == ("npz:mine.npz", "convnet")


@pytest.mark.parametrize("study", [None, "default"])
def test_without_a_data_set_the_error_names_what_is_built_in(study: str | None) -> None:
    with pytest.raises(UserError, match=r"Give --dataset or --study; built in are .*digits") as error:
        draft_for(None, study)
    assert "default" not in str(error.value)


@pytest.mark.parametrize(
    ("dataset", "study", "name"),
    [
        ("digits", None, "digits"),
        ("digits", "default", "digits"),
        ("digits", "quick/first.toml", "first"),
        ("npz:/data/images.npz", None, "images"),
        ("npz:/data/images.v2", None, "images.v2"),
        ("npz:/data/parts/", None, "parts"),
        ("npz:~/parts", None, "parts"),
    ],
)
def test_a_study_is_called_after_its_file_or_the_last_component_of_its_data(
    dataset: str, study: str | None, name: str
) -> None:
    assert default_name(dataset, study) == name


def test_a_folder_that_is_named_by_a_dot_gives_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_name("npz:.", None) == tmp_path.name


@pytest.mark.parametrize("dataset", ["npz:", "npz:/", "npz:..", "npz:/data/.."])
def test_a_path_without_a_last_component_needs_a_name(dataset: str) -> None:
    with pytest.raises(UserError, match="give --name"):
        default_name(dataset, None)


# -- overrides ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("true", True),
        ("[64, 128]", [64, 128]),
        ('{ name = "constant" }', {"name": "constant"}),
        ('"resnet8"', "resnet8"),
        ("resnet8", "resnet8"),
        ("wrn-16-1", "wrn-16-1"),
        ("npz:/data/a=b.npz", "npz:/data/a=b.npz"),
        ("", ""),
        ("3 # epochs", 3),
        ("3\nseed = 4", "3\nseed = 4"),
        ("3\n[data]", "3\n[data]"),
    ],
)
def test_an_assigned_value_is_toml_or_else_a_string(text: str, value: Any) -> None:
    draft = Draft("study.toml")
    draft.assign(f"data.dataset={text}")
    assert draft.values == {"data": {"dataset": value}}


def test_an_assigned_table_replaces_the_whole_table() -> None:
    draft = Draft("study.toml", {"teacher": {"schedule": {"name": "wsd", "warmup": 3, "decay": 0.5}}})
    draft.assign('teacher.schedule={ name = "constant" }')
    assert draft.config().teacher.schedule == Constant(warmup=0.0)


def test_a_table_without_a_name_is_of_the_default_kind() -> None:
    draft = Draft("study.toml")
    draft.assign("teacher.optimizer={ lr = 0.5 }")
    assert draft.config().teacher.optimizer.name == "sgd"
    assert draft.config().teacher.optimizer.lr == 0.5


def test_the_last_of_several_assignments_holds() -> None:
    draft = Draft("study.toml")
    for assignment in ("seed=1", "seed=2", "student={ epochs = 3 }", "student.batch_size=8"):
        draft.assign(assignment)
    config = draft.config()
    assert (config.seed, config.student.epochs, config.student.batch_size) == (2, 3, 8)


@pytest.mark.parametrize("assignment", ["", "seed", "=3", "teacher..lr=3", ".=3", "teacher.=3"])
def test_an_assignment_without_key_or_value_is_explained_by_an_example(assignment: str) -> None:
    with pytest.raises(UserError, match=r"^--set .*like (--set )?teacher.optimizer.lr=0.1"):
        Draft("study.toml").assign(assignment)


def test_a_value_has_no_keys_of_its_own() -> None:
    draft = Draft("study.toml", {"teacher": {"model": "resnet8"}})
    with pytest.raises(UserError, match=r'--set teacher\.model\.depth: teacher\.model is "resnet8", not a table'):
        draft.assign("teacher.model.depth=3")


def test_overridden_knows_a_key_that_was_given_with_its_table() -> None:
    draft = Draft("study.toml", {"seed": 3})
    draft.assign("search={ trials = 3 }")
    assert draft.overridden("search.trials")
    assert not draft.overridden("seed")


# -- errors ---------------------------------------------------------------------------------------------------------


def test_an_error_in_the_file_names_file_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    path = written(tmp_path, '[student]\nepochs = "many"\n')
    assert refusal(Draft.read(path)) == f'{path}: student.epochs = "many": must be a whole number'


def test_an_error_in_an_option_names_the_option() -> None:
    draft = Draft("study.toml", {"student": {"epochs": 3}})
    draft.assign("student.epochs=many")
    assert refusal(draft) == '--set student.epochs: student.epochs = "many": must be a whole number'


def test_an_error_names_the_last_option_that_gave_the_value() -> None:
    draft = Draft("study.toml")
    draft.assign("teacher={ model = 'mlp' }")
    draft.assign("teacher.optimizer.lr=-1")
    assert refusal(draft).startswith("--set teacher.optimizer.lr: teacher.optimizer.lr = -1: ")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("techer.model", "did you mean teacher? known at the top level are confirm, data"),
        ("teacher.optimiser.lr", "did you mean teacher.optimizer? known in [teacher] are"),
        ("teacher.optimizer.lrr", 'did you mean teacher.optimizer.lr? known in [teacher.optimizer] with name = "sgd"'),
        ("teacher.lr_rule.cup", "did you mean teacher.lr_rule.cap? known in [teacher.lr_rule] are"),
        ("search.epochs.hihg", "did you mean search.epochs.high?"),
        ("search.student.temprature", "did you mean search.student.temperature?"),
        ("pruner.lo", "did you mean pruner.low?"),
        ("zzz", "known at the top level"),
    ],
)
def test_a_misspelt_key_suggests_the_nearest(key: str, nearest: str) -> None:
    draft = Draft("study.toml")
    draft.assign(f"{key}=1")
    message = refusal(draft)
    assert message.startswith(f"--set {key}: unknown key ")
    assert nearest in message


def test_a_key_of_another_kind_of_table_is_not_suggested() -> None:
    draft = Draft("study.toml")
    draft.assign('teacher.optimizer={ name = "adamw", nesterov = true }')
    assert refusal(draft) == (
        "--set teacher.optimizer: unknown key teacher.optimizer.nesterov: "
        'known in [teacher.optimizer] with name = "adamw" are betas, lr, name, weight_decay'
    )


def test_a_long_value_is_not_repeated_in_full() -> None:
    draft = Draft("study.toml")
    draft.assign(f"student.epochs={'x' * 100_000}")
    assert len(refusal(draft)) < 1000


# -- the built-in studies -------------------------------------------------------------------------------------------

STUDIES = sorted(built_in())


def test_there_is_a_study_for_digits_and_one_for_data_by_path() -> None:
    assert {"digits", "default"} <= set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_a_built_in_study_loads_and_builds_its_networks(name: str) -> None:
    config = draft_for("npz:mine.npz" if name == "default" else None, name).config()
    about = info(config.data.dataset)
    classes, channels, image_size = (10, 3, 32) if about is None else (about.classes, about.channels, about.image_size)
    for model in (config.teacher.model, config.student.model, *(config.search.teacher.model or ())):
        build(model, classes=classes, channels=channels, image_size=image_size)


@pytest.mark.parametrize("name", STUDIES)
def test_a_built_in_study_is_named_after_its_data_set_and_fits_it(name: str) -> None:
    config = Draft.read(find(name)).config()
    if name == "default":
        assert isinstance(config.data.validation, float), "a fraction, for data sets of any size"
        return
    assert name in (config.data.dataset, f"{config.data.dataset}-point")
    about = info(config.data.dataset)
    assert about is not None
    assert max(*config.search.batch_size, config.student.batch_size) <= about.train_images - config.data.validation


@pytest.mark.parametrize("name", STUDIES)
def test_a_built_in_study_states_its_budget(name: str) -> None:
    lines = find(name).read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    for word in ("Pair: ", "ladder", "trials", "Budget: ", "teacher epochs", "student epochs", "GPU-hour"):
        assert word in comment


@pytest.mark.parametrize("name", STUDIES)
def test_a_built_in_study_is_described_on_one_line(name: str) -> None:
    line = headline(find(name))
    assert line.endswith(".")
    assert not line.startswith("#")
    assert "\n" not in line
