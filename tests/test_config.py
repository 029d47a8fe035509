"""StudyConfig: what it accepts, what it refuses, and what makes two studies the same."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sweetspot.config import Ladder, Part, StudyConfig, canonical_json
from sweetspot.errors import UserError
from sweetspot.study_file import Draft

# -- any valid study file -------------------------------------------------------------------------------------------

counts = st.integers(1, 10_000)
positive = st.floats(1e-6, 1e6)
fractions = st.floats(0, 1, exclude_max=True)
names = st.text(min_size=1, max_size=20)
precisions = st.sampled_from(["auto", "float32", "bfloat16"])


def table(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A table of a study file: each of its fields may be left out."""
    return st.fixed_dictionaries({}, optional=fields)


def ordered(values: st.SearchStrategy[Any], low: str = "low", high: str = "high") -> st.SearchStrategy[dict[str, Any]]:
    pairs = st.tuples(values, values).filter(lambda pair: pair[0] != pair[1])
    return pairs.map(lambda pair: {low: min(pair), high: max(pair)})


optimizers = st.one_of(
    table(
        name=st.just("sgd"), lr=positive, momentum=st.floats(0.1, 0.99), nesterov=st.booleans(), weight_decay=positive
    ),
    st.fixed_dictionaries(
        {"name": st.just("adamw")}, optional={"lr": positive, "betas": st.tuples(fractions, fractions)}
    ),
)
milestones = st.one_of(st.sets(st.integers(1, 300), min_size=1), st.sets(st.floats(0.01, 0.99), min_size=1)).map(sorted)
schedules = st.one_of(
    table(name=st.just("constant"), warmup=positive),
    st.fixed_dictionaries({"name": st.just("multistep")}, optional={"milestones": milestones, "warmup": positive}),
    st.fixed_dictionaries({"name": st.just("wsd")}, optional={"decay": st.floats(0.01, 1), "warmup": positive}),
    st.fixed_dictionaries({"name": st.just("cosine")}, optional={"warmup": positive}),
)
ladders = st.tuples(ordered(counts), st.integers(2, 20)).map(lambda pair: pair[0] | {"rungs": pair[1]})
ranges = ordered(positive)
splits_and_views = {
    "validation": st.one_of(counts, st.floats(0.001, 0.999)),
    "augmentation": st.lists(st.sampled_from(["crop", "flip"])),
}
valid_files = table(
    seed=st.integers(0, 2**31 - 1),
    data=st.one_of(
        table(dataset=names, **splits_and_views),
        st.fixed_dictionaries(
            {"dataset": names.map("imagefolder:{}".format)}, optional={"image_size": counts, **splits_and_views}
        ),
    ),
    teacher=table(
        model=names,
        optimizer=optimizers,
        lr_rule=table(name=st.sampled_from(["none", "sqrt", "linear"]), batch_size=counts, cap=positive),
        schedule=schedules,
        label_smoothing=fractions,
        precision=precisions,
        probe_temperature=positive,
    ),
    student=table(
        model=names,
        epochs=counts,
        batch_size=counts,
        optimizer=optimizers,
        schedule=schedules,
        temperature=positive,
        alpha=st.floats(0, 1),
        precision=precisions,
        replicates=ordered(counts, "min", "max"),
    ),
    search=table(
        batch_size=st.lists(counts, min_size=1),
        epochs=st.one_of(ladders, st.lists(counts, min_size=1)),
        trials=counts,
        sampler=st.sampled_from(["cost-aware", "gp", "tpe", "random"]),
        min_steps=st.integers(0, 10_000),
        student=table(temperature=ranges, alpha=ordered(st.floats(0.01, 1))),
        teacher=table(lr=ranges, model=st.lists(names, min_size=1)),
    ),
    pruner=st.one_of(
        st.just({"name": "none"}),
        table(learn=st.booleans(), n_startup_trials=st.integers(4, 99), p=st.floats(0.01, 0.49), margin=positive),
        ordered(positive),
    ),
    confirm=table(seeds=st.sampled_from([0, 2, 5, 100]), margin=st.floats(0, 0.5)),
    run=table(
        checkpoint_seconds=positive,
        deterministic=st.booleans(),
        heartbeat_seconds=st.integers(1, 100),
        grace_seconds=st.integers(200, 10_000),
    ),
)


@settings(deadline=None)
@given(valid_files)
def test_any_valid_study_file_survives_its_canonical_json(values: dict[str, Any]) -> None:
    config = Draft("study.toml", values).config()
    again = StudyConfig.from_json(config.to_json())
    assert again == config
    assert again.to_json() == config.to_json()
    assert again.identity() == config.identity()
    assert config.differences(again) == []


@settings(deadline=None)
@given(valid_files)
def test_a_configuration_is_a_study_file_of_itself(values: dict[str, Any]) -> None:
    config = Draft("study.toml", values).config()
    assert Draft("study.toml", config.model_dump(mode="json")).config() == config


# -- anything else --------------------------------------------------------------------------------------------------


def parts(kind: type[Part] = Part) -> list[type[Part]]:
    return [each for part in kind.__subclasses__() for each in [part, *parts(part)]]


keys = st.one_of(st.sampled_from(sorted({name for part in parts() for name in part.model_fields})), st.text(max_size=5))
scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(["sgd", "adamw", "wsd", "multistep", "none", "\ud800", "a\nb", "\x1b[31m"]),
    st.dates(),
    st.datetimes(),
)
garbage = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


def assert_is_a_configuration_or_one_line(draft: Draft) -> None:
    try:
        config = draft.config()
    except UserError as error:
        line = str(error)
        assert line.isprintable()
        assert draft.origin in line or "--set" in line
    else:
        assert StudyConfig.from_json(config.to_json()) == config


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(keys, garbage, max_size=4))
def test_a_study_file_of_garbage_is_refused_in_one_line(values: dict[str, Any]) -> None:
    assert_is_a_configuration_or_one_line(Draft("study.toml", values))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_garbage_anywhere_in_a_valid_study_file_is_refused_in_one_line(data: st.DataObject) -> None:
    values = StudyConfig().model_dump(mode="json")
    table = values
    while True:
        key = data.draw(st.sampled_from(sorted(table)))
        if not isinstance(table[key], dict) or data.draw(st.booleans()):
            break
        table = table[key]
    table[key] = data.draw(garbage)
    assert_is_a_configuration_or_one_line(Draft("study.toml", values))


@settings(deadline=None, max_examples=300)
@given(st.lists(keys, min_size=1, max_size=4).map(".".join), st.text(max_size=30))
def test_an_assignment_of_garbage_is_refused_in_one_line(key: str, value: str) -> None:
    draft = Draft("study.toml")
    with suppress(UserError):  # there are keys that cannot be: "", "a..b"
        draft.assign(f"{key}={value}")
    assert_is_a_configuration_or_one_line(draft)


# -- every field is reached from the command line -------------------------------------------------------------------

# Between them, these have every part of a configuration, and a value other than the default in every field.
RICH = [
    {
        "seed": 7,
        "data": {"dataset": "imagefolder:mine", "validation": 0.25, "augmentation": ["flip"], "image_size": 48},
        "teacher": {
            "model": "resnet8",
            "optimizer": {"name": "sgd", "lr": 0.3, "momentum": 0.5, "nesterov": False, "weight_decay": 0.1},
            "lr_rule": {"name": "sqrt", "batch_size": 32, "cap": 2.0},
            "schedule": {"name": "multistep", "milestones": [10, 20], "gamma": 0.5, "warmup": 2.0},
            "label_smoothing": 0.1,
            "precision": "float32",
            "probe_temperature": 2.0,
            "seed": 3,
        },
        "student": {
            "model": "mlp",
            "epochs": 7,
            "batch_size": 32,
            "optimizer": {"name": "adamw", "lr": 0.01, "betas": [0.8, 0.9], "weight_decay": 0.1},
            "schedule": {"name": "wsd", "warmup": 0.5, "decay": 0.5},
            "temperature": 2.0,
            "alpha": 0.5,
            "precision": "bfloat16",
            "replicates": {"min": 2, "max": 4},
        },
        "search": {
            "batch_size": [8, 16],
            "epochs": {"low": 2, "high": 8, "rungs": 3},
            "trials": 9,
            "sampler": "gp",
            "min_steps": 3,
            "student": {
                "temperature": {"low": 2.0, "high": 8.0, "log": True},
                "alpha": {"low": 0.5, "high": 1.0, "log": True},
            },
            "teacher": {
                "lr": {"low": 0.01, "high": 1.0, "log": True},
                "model": ["resnet8", "resnet14"],
                "seeds": 2,
            },
        },
        "pruner": {
            "name": "similarity-entropy",
            "low": 0.1,
            "high": 2.0,
            "learn": False,
            "n_startup_trials": 6,
            "p": 0.1,
            "margin": 0.01,
        },
        "confirm": {
            "finalists": 2,
            "teachers": 5,
            "seeds": 7,
            "margin": 0.01,
            "arms": ["student_alone", "most_accurate_teacher"],
            "lr_check": True,
        },
        "run": {"checkpoint_seconds": 5.0, "deterministic": True, "heartbeat_seconds": 2, "grace_seconds": 9},
    },
    {
        "teacher": {"schedule": {"name": "constant", "warmup": 3.0}},
        "student": {"schedule": {"name": "cosine", "warmup": 2.0}},
        "search": {"epochs": [3, 5, 9]},
        "pruner": {"name": "none"},
    },
]


def tables(part: Part) -> Iterator[Part]:
    yield part
    for name in type(part).model_fields:
        if isinstance(inner := getattr(part, name), Part):
            yield from tables(inner)


def leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        yield (*path, key)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def at(values: dict[str, Any], path: tuple[str, ...]) -> Any:
    for part in path:
        values = values[part]
    return values


def test_the_rich_configurations_have_every_field_there_is() -> None:
    configs = [Draft("rich", values).config() for values in RICH]
    assert {type(part) for config in configs for part in tables(config)} == set(parts())
    for part in tables(configs[0]):
        assert part.model_fields_set == set(type(part).model_fields)


@pytest.mark.parametrize(
    ("values", "path"), [pytest.param(v, path, id=".".join(path)) for v in RICH for path in leaves(v)]
)
def test_every_field_and_every_table_is_reached_by_set(values: dict[str, Any], path: tuple[str, ...]) -> None:
    expected = Draft("rich", values).config()
    without = json.loads(json.dumps(values))
    value = at(without, path[:-1]).pop(path[-1])
    draft = Draft("study.toml", without)
    draft.assign(f"{'.'.join(path)}={toml(value)}")
    assert draft.config() == expected
    assert draft.overridden(".".join(path))


# -- strictness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("student.epochs", "5", "must be a whole number"),
        ("student.epochs", True, "must be a whole number"),
        ("student.epochs", 3.5, "must be a whole number"),
        ("student.epochs", 0, "must be greater than 0"),
        ("student.epochs", 2**31, "must be less than 2147483648"),
        ("seed", -1, "must be greater than or equal to 0"),
        ("seed", 2**31, "must be less than 2147483648"),
        ("data.dataset", "", "must not be empty"),
        ("data.dataset", 3, "must be a string"),
        ("data.validation", 0, "must be a whole number of images, or a fraction above 0 and below 1"),
        ("data.validation", 1.0, "must be a whole number of images, or a fraction above 0 and below 1"),
        ("data.validation", 300.0, "must be a whole number of images, or a fraction above 0 and below 1"),
        ("data.validation", True, "must be a whole number or a number"),
        ("data.augmentation", "crop", "must be a list"),
        ("data.augmentation", ["rotate"], "must be 'crop' or 'flip'"),
        ("run.deterministic", 1, "must be true or false"),
        ("run.deterministic", "true", "must be true or false"),
        ("teacher", 3, "must be a table"),
        ("teacher.optimizer.lr", "fast", "must be a number"),
        ("teacher.optimizer.lr", 0, "must be greater than 0"),
        ("teacher.optimizer.lr", float("inf"), "must be a finite number"),
        ("teacher.optimizer.lr", float("nan"), "must be a finite number"),
        ("teacher.optimizer.lr", 10**400, "must be a finite number"),
        ("teacher.optimizer.momentum", 0, "nesterov = true needs a momentum above 0"),
        ("teacher.optimizer.momentum", 1, "must be less than 1"),
        ("teacher.optimizer", "sgd", "must be a table"),
        ("teacher.schedule", "wsd", "must be a table"),
        ("teacher.schedule", {"name": "wsdd"}, "unknown name 'wsdd'"),
        ("teacher.schedule", {"name": "multistep", "milestones": [20, 10]}, "milestones must rise"),
        ("teacher.schedule", {"name": "multistep", "milestones": [0.5, 10]}, "all epochs (1 or more) or all fractions"),
        ("teacher.schedule", {"name": "multistep", "milestones": [1.5]}, "must be whole numbers"),
        ("teacher.schedule", {"name": "multistep", "milestones": []}, "must not be empty"),
        ("teacher.precision", "float16", "must be 'auto', 'float32' or 'bfloat16'"),
        ("student.alpha", 1.1, "must be less than or equal to 1"),
        ("student.replicates", {"min": 4}, "min = 4 is more than max = 3"),
        ("search.batch_size", 64, "must be a list"),
        ("search.batch_size", [], "must not be empty"),
        ("search.batch_size", [0], "must be greater than 0"),
        ("search.epochs", 10, "must be a table or a list"),
        ("search.epochs", [], "must not be empty"),
        ("search.epochs", [1, "2"], "must be a whole number"),
        ("search.epochs", {"low": 9, "high": 9, "rungs": 2}, "low = 9 must be below high = 9"),
        ("search.epochs", {"low": 1, "high": 9, "rungs": 1}, "must be greater than or equal to 2"),
        ("search.epochs", {"low": 1, "rungs": 2}, "must be given"),
        ("search.sampler", "bayes", "must be 'cost-aware', 'gp', 'tpe', 'random' or 'grid'"),
        ("search.student.alpha", {"low": 0.5, "high": 2.0}, "high must not exceed 1"),
        ("search.teacher.model", "resnet8", "must be a list"),
        ("search.teacher.model", [], "must not be empty"),
        ("search", {"sampler": "grid", "teacher": {"lr": {"low": 0.1, "high": 1}}}, "cannot search a continuous range"),
        ("pruner", "none", "must be a table"),
        ("pruner", {"low": 2, "high": 1}, "low = 2.0 must be below high = 1.0"),
        ("confirm.seeds", 1, "an interval needs at least 2 seeds"),
        ("confirm.margin", 2, "2 is no fraction: half a point of accuracy is 0.005"),
        ("run.grace_seconds", 20, "at least twice heartbeat_seconds"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_and_the_error_says_what_is_allowed(
    key: str, value: Any, allowed: str
) -> None:
    draft = Draft("study.toml")
    draft.set(key, value, "--set")
    with pytest.raises(UserError) as error:
        draft.config()
    table = key.rpartition(".")[0]
    assert str(error.value).startswith((f"--set: {key}", f"--set: {table} = "))
    assert allowed in str(error.value)


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        StudyConfig().seed = 3  # type: ignore[misc]


# -- what a study is ------------------------------------------------------------------------------------------------


def configured(**values: Any) -> StudyConfig:
    draft = Draft("study.toml")
    for key, value in values.items():
        draft.set(key.replace("__", "."), value, key)
    return draft.config()


def test_the_ladder_is_geometric_with_both_ends() -> None:
    assert Ladder(low=10, high=240, rungs=10).epochs() == (10, 14, 20, 29, 41, 58, 83, 118, 169, 240)


@settings(deadline=None)
@given(ladders)
def test_a_ladder_rises_from_its_low_to_its_high_end_in_whole_epochs(values: dict[str, int]) -> None:
    epochs = Ladder(**values).epochs()
    assert (epochs[0], epochs[-1]) == (values["low"], values["high"])
    assert list(epochs) == sorted(set(epochs))
    assert len(epochs) <= values["rungs"]


def test_listed_batch_sizes_and_epochs_are_sorted_and_unique() -> None:
    config = configured(search__batch_size=[64, 8, 64], search__epochs=[9, 3, 9])
    assert config.search.batch_size == (8, 64)
    assert config.search.ladder == (3, 9)


def test_the_order_of_a_list_does_not_make_another_study() -> None:
    assert configured(search__batch_size=[64, 8]).identity() == configured(search__batch_size=[8, 64]).identity()


@pytest.mark.parametrize(
    "values", [{"search__trials": 7}, {"confirm__seeds": 9}, {"confirm__margin": 0.1}, {"run__deterministic": True}]
)
def test_how_a_study_runs_and_is_confirmed_is_no_part_of_its_identity(values: dict[str, Any]) -> None:
    changed = configured(**values)
    assert changed != StudyConfig()
    assert changed.identity() == StudyConfig().identity()
    assert StudyConfig().differences(changed) == []


def test_a_study_that_was_stored_before_images_could_be_resized_is_the_same_study() -> None:
    before = StudyConfig().model_dump(mode="json")
    del before["data"]["image_size"]
    stored = StudyConfig.from_json(canonical_json(before))
    assert stored == StudyConfig()
    assert StudyConfig().differences(stored) == []


def test_another_size_of_the_images_is_another_study() -> None:
    mine, other = (configured(data={"dataset": "imagefolder:mine", "image_size": size}) for size in (32, 64))
    assert mine.differences(other) == ["data.image_size (32 is stored, 64 is asked for)"]


@pytest.mark.parametrize("dataset", ["digits", "npz:mine.npz", "fruit", "imagefolder"])
def test_only_images_in_folders_have_a_size_to_choose(dataset: str) -> None:
    draft = Draft("study.toml", {"data": {"dataset": dataset}})
    draft.assign("data.image_size=32")
    with pytest.raises(UserError) as error:
        draft.config()
    assert str(error.value) == (
        "--set data.image_size: data.image_size = 32: only the images of imagefolder:PATH are resized; "
        f"those of {dataset} have their own size"
    )


def test_differences_name_the_keys_and_both_values() -> None:
    changed = configured(
        teacher__optimizer__lr=0.05, student__epochs=3, teacher__schedule={"name": "constant"}, search__trials=1
    )
    assert StudyConfig().differences(changed) == [
        "student.epochs (60 is stored, 3 is asked for)",
        "teacher.optimizer.lr (0.1 is stored, 0.05 is asked for)",
        "teacher.schedule.decay (0.2 is stored, null is asked for)",
        'teacher.schedule.name ("wsd" is stored, "constant" is asked for)',
        "teacher.schedule.warmup (1.0 is stored, 0.0 is asked for)",
    ]


def test_canonical_json_of_equal_values_is_equal_text() -> None:
    assert canonical_json({"b": [1, 2.5], "a": None}) == canonical_json({"a": None, "b": [1, 2.5]})
    assert canonical_json({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'


def test_canonical_json_has_no_text_for_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))
