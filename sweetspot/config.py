"""StudyConfig and its parts: what a study is, as validated, immutable values.

Imports nothing of the package above it and no torch: the command line reads configurations before it needs a network.
How a study *file* becomes a StudyConfig, and how its errors read, is in :mod:`sweetspot.study_file`.
"""

import json
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

Name = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]
Precision = Literal["auto", "float32", "bfloat16"]
Count = Annotated[int, Field(gt=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Part(BaseModel):
    """A frozen table of a study file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _by_name(default: str) -> Discriminator:
    """Which kind a table is: a table without a name is of the default kind, so that ``{ lr = 0.05 }`` says enough."""
    return Discriminator(lambda v: v.get("name", default) if isinstance(v, dict) else getattr(v, "name", default))


RESIZED = "imagefolder:"
"""What the names of the data sets begin with whose images are brought to a size."""


def check_image_size(dataset: str, image_size: int | None) -> None:
    """Refuse a size for images that have one of their own.

    Raises:
        ValueError: says which have none.
    """
    if image_size is not None and not dataset.startswith(RESIZED):
        raise ValueError(f"only the images of {RESIZED}PATH are resized; those of {dataset} have their own size")


# -- data -------------------------------------------------------------------------------------------------------------


class DataConfig(Part):
    dataset: Name = "cifar100"
    validation: int | float = 5000
    """Images held out of the training set, stratified by class; below 1: a fraction of it."""
    augmentation: tuple[Literal["crop", "flip"], ...] = ("crop", "flip")
    image_size: Count | None = None
    """Height and width, in pixels, to which the images of ``imagefolder:PATH`` are brought; None: 64."""

    @field_validator("validation")
    @classmethod
    def _count_or_fraction(cls, validation: float) -> float:
        if not (validation >= 1 if isinstance(validation, int) else 0 < validation < 1):
            raise ValueError("must be a whole number of images, or a fraction above 0 and below 1")
        return validation

    @field_validator("image_size")
    @classmethod
    def _only_files_are_resized(cls, image_size: int | None, others: ValidationInfo) -> int | None:
        check_image_size(others.data.get("dataset", RESIZED), image_size)  # not there: it is wrong itself, and says so
        return image_size


# -- training: shared by teacher and student --------------------------------------------------------------------------


class SGD(Part):
    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 0.1
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 5e-4

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov = true needs a momentum above 0")
        return self


class AdamW(Part):
    name: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: NonNegative = 0.01


Optimizer = Annotated[Annotated[SGD, Tag("sgd")] | Annotated[AdamW, Tag("adamw")], _by_name("sgd")]


class LRRule(Part):
    """How the learning rate follows the batch size: ``lr * min(cap, f(batch_size / this batch_size))``."""

    name: Literal["none", "sqrt", "linear"] = "linear"
    batch_size: Count = 128
    cap: PositiveFloat = 4.0


class Constant(Part):
    name: Literal["constant"] = "constant"
    warmup: NonNegative = 0.0
    """Epochs (fractions allowed) over which the learning rate rises linearly from zero."""


class Multistep(Part):
    name: Literal["multistep"] = "multistep"
    milestones: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.625, 0.75, 0.875)
    """All at least 1: absolute epochs. All below 1: fractions of the run."""
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    warmup: NonNegative = 0.0

    @field_validator("milestones")
    @classmethod
    def _one_meaning(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if list(milestones) != sorted(set(milestones)):
            raise ValueError("milestones must rise")
        fractions = [m < 1 for m in milestones]
        if any(fractions) and not all(fractions):
            raise ValueError("milestones are either all epochs (1 or more) or all fractions of the run (below 1)")
        if not any(fractions) and any(m != int(m) for m in milestones):
            raise ValueError("milestones in epochs must be whole numbers")
        return milestones


class WSD(Part):
    """Warm-up, stable, decay: constant, then linearly to zero over the last part of the run."""

    name: Literal["wsd"] = "wsd"
    warmup: NonNegative = 1.0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Fraction of the run over which the learning rate falls to zero."""


class Cosine(Part):
    name: Literal["cosine"] = "cosine"
    warmup: NonNegative = 0.0


Schedule = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Multistep, Tag("multistep")]
    | Annotated[WSD, Tag("wsd")]
    | Annotated[Cosine, Tag("cosine")],
    _by_name("constant"),
]


class TeacherConfig(Part):
    model: Name = "resnet56"
    optimizer: Optimizer = SGD()
    lr_rule: LRRule = LRRule()
    schedule: Schedule = WSD()
    label_smoothing: Fraction = 0.0
    precision: Precision = "auto"
    probe_temperature: PositiveFloat = 4.0
    """The temperature at which a teacher's responses are measured, fixed for the study."""
    seed: Seed = 0
    """Which teacher of its recipe: its initial weights and orders. The confirmation trains others afresh."""


class Replicates(Part):
    min: Count = 1
    max: Count = 3

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is more than max = {self.max}")
        return self


class StudentConfig(Part):
    model: Name = "resnet20"
    epochs: Count = 60
    batch_size: Count = 128
    optimizer: Optimizer = SGD()
    schedule: Schedule = Cosine()
    temperature: PositiveFloat = 4.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Weight of the teacher's part of the loss; the labels have the rest."""
    precision: Precision = "auto"
    replicates: Replicates = Replicates()


# -- search -----------------------------------------------------------------------------------------------------------


class Ladder(Part):
    """Geometric rungs from ``low`` to ``high`` epochs, rounded to whole epochs, both ends included."""

    low: Count
    high: Count
    rungs: Annotated[int, Field(ge=2, le=1000)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        return self

    def epochs(self) -> tuple[int, ...]:
        ratio = self.high / self.low
        return tuple(sorted({round(self.low * ratio ** (i / (self.rungs - 1))) for i in range(self.rungs)}))


class Range(Part):
    """A continuous range of a further search parameter."""

    low: PositiveFloat
    high: PositiveFloat
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        return self


class StudentSearch(Part):
    """Further search parameters of the student; what is not given stays as it is in ``[student]``."""

    temperature: Range | None = None
    alpha: Range | None = None

    @field_validator("alpha")
    @classmethod
    def _alpha_is_a_weight(cls, alpha: Range | None) -> Range | None:
        if alpha is not None and alpha.high > 1:
            raise ValueError("alpha is a weight: high must not exceed 1")
        return alpha


class TeacherSearch(Part):
    """Further search parameters of the teacher; what is not given stays as it is in ``[teacher]``."""

    lr: Range | None = None
    model: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    seeds: Count | None = None
    """Every point with so many teachers, seeds 0 and on: a table (``sweetspot grid``), not a search."""


class SearchConfig(Part):
    batch_size: Annotated[tuple[Count, ...], Field(min_length=1)] = (64, 128, 256, 512, 1024)
    epochs: Ladder | Annotated[tuple[Count, ...], Field(min_length=1)] = Ladder(low=10, high=240, rungs=10)
    trials: Count = 40
    sampler: Literal["cost-aware", "gp", "tpe", "random", "grid"] = "cost-aware"
    """cost-aware: most expected improvement for its cost; gp: most expected improvement; the others are Optuna's."""
    min_steps: Annotated[int, Field(ge=0, lt=2**31)] = 1000
    """Points whose teacher takes fewer steps are under-trained and cannot be the sweet spot."""
    student: StudentSearch = StudentSearch()
    teacher: TeacherSearch = TeacherSearch()

    @field_validator("batch_size")
    @classmethod
    def _sorted(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(sizes)))

    @field_validator("epochs")
    @classmethod
    def _sorted_epochs(cls, epochs: Ladder | tuple[int, ...]) -> Ladder | tuple[int, ...]:
        return epochs if isinstance(epochs, Ladder) else tuple(sorted(set(epochs)))

    @model_validator(mode="after")
    def _grid_is_finite(self) -> Self:
        continuous = (self.student.temperature, self.student.alpha, self.teacher.lr)
        if self.sampler == "grid" and any(r is not None for r in continuous):
            raise ValueError(
                'sampler = "grid" cannot search a continuous range; use "cost-aware", "gp", "tpe" or "random"'
            )
        return self

    @property
    def ladder(self) -> tuple[int, ...]:
        """The epoch values of the search, ascending."""
        return self.epochs.epochs() if isinstance(self.epochs, Ladder) else self.epochs


class NoPruner(Part):
    name: Literal["none"] = "none"


class SimilarityEntropyRule(Part):
    """Arguments of :class:`sweetspot.SimilarityEntropyPruner`."""

    name: Literal["similarity-entropy"] = "similarity-entropy"
    low: NonNegative | None = None
    """Similarity entropy (nats) below which a trial is pruned at any rung."""
    high: NonNegative | None = None
    """Similarity entropy (nats) above which a trial is pruned at its own epochs."""
    learn: bool = True
    """Prune also by what completed trials say of similarity entropy and accuracy."""
    n_startup_trials: Annotated[int, Field(ge=4, lt=2**31)] = 6
    p: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Prune when the chance of coming within ``margin`` of the best point is below this."""
    margin: NonNegative = 0.0
    """Accuracy (fraction) by which a point may fall short of the best and still be kept."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        return self


Pruner = Annotated[
    Annotated[SimilarityEntropyRule, Tag("similarity-entropy")] | Annotated[NoPruner, Tag("none")],
    _by_name("similarity-entropy"),
]


ConfirmArm = Literal[
    "student_alone",
    "label_smoothing",
    "most_accurate_teacher",
    "temperature",
    "longest_teacher",
    "economy",
    "your_teacher",
]


MOST_SEEDS = 10_000
"""Of fresh teachers in a confirmation, and of students of each."""


class ConfirmConfig(Part):
    finalists: Count = 1
    """The best points that are confirmed; of several, the claims are Holm-corrected."""
    teachers: Annotated[int, Field(ge=0, le=MOST_SEEDS)] = 0
    """Fresh teacher seeds per arm, at least 5, for a claim about the point; 0: the claim is about this teacher only."""
    seeds: Annotated[int, Field(ge=0, le=MOST_SEEDS)] = 5
    """Fresh student seeds per teacher; 0: no confirmation."""
    margin: NonNegative = 0.002
    """Accuracy (fraction): smaller differences do not matter. 0.005 is half a point."""
    arms: tuple[ConfirmArm, ...] = get_args(ConfirmArm)
    """What the best point is compared with."""
    lr_check: bool = False
    """Whether the best and the runner-up batch size are also run at half and double the teacher's learning rate."""

    @field_validator("teachers")
    @classmethod
    def _enough_teachers(cls, teachers: int) -> int:
        if 0 < teachers < 5:
            raise ValueError("a claim about the point needs at least 5 fresh teachers (0: the claim is about this one)")
        return teachers

    @field_validator("margin")
    @classmethod
    def _is_fraction(cls, margin: float) -> float:
        if margin >= 1:
            raise ValueError(f"{margin:g} is no fraction: half a point of accuracy is 0.005")
        return margin

    @field_validator("arms")
    @classmethod
    def _enough_arms(cls, arms: tuple[ConfirmArm, ...]) -> tuple[ConfirmArm, ...]:
        if missing := {"student_alone", "most_accurate_teacher"} - set(arms):
            raise ValueError(f"there is no verdict without {' and '.join(sorted(missing))}: name it, too")
        return tuple(arm for arm in get_args(ConfirmArm) if arm in arms)

    @model_validator(mode="after")
    def _enough_for_an_interval(self) -> Self:
        if self.seeds == 1 and self.teachers == 0:
            raise ValueError("seeds = 1: an interval needs at least 2 seeds (0 skips the confirmation)")
        return self


class RunConfig(Part):
    """How a study runs, not what it is."""

    checkpoint_seconds: PositiveFloat = 60.0
    deterministic: bool = False
    heartbeat_seconds: Count = 15
    grace_seconds: Count = 900
    """How long a silent worker on another machine keeps its trial."""

    @property
    def outage_seconds(self) -> float:
        """How long a worker waits for a database or for artifacts that do not answer: well within the grace."""
        return self.grace_seconds * 2 / 3

    @model_validator(mode="after")
    def _grace_outlasts_heartbeats(self) -> Self:
        if self.grace_seconds < 2 * self.heartbeat_seconds:
            raise ValueError("grace_seconds must be at least twice heartbeat_seconds")
        return self


class StudyConfig(Part):
    """A study: one data set, one teacher-student pair, and how their sweet spot is searched.

    Every field has a default. Two configurations with equal :meth:`identity` are the same study.
    """

    seed: Seed = 0
    """Split, initial weights, orders, views and the search all follow from it."""
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    search: SearchConfig = SearchConfig()
    pruner: Pruner = SimilarityEntropyRule()
    confirm: ConfirmConfig = ConfirmConfig()
    run: RunConfig = RunConfig()

    def to_json(self) -> str:
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.model_validate_json(text)

    def identity(self) -> dict[str, Any]:
        """What makes this study itself: all but ``[run]``, ``[confirm]`` and ``search.trials``.

        Of a data set that is given by its path only the kind counts: its hash says what it is, wherever it lies.
        """
        values = self.model_dump(mode="json", exclude={"run": True, "confirm": True, "search": {"trials"}})
        kind, colon, _ = self.data.dataset.partition(":")
        values["data"]["dataset"] = kind + colon
        return values

    def differences(self, other: Self) -> list[str]:
        """The dotted keys in which the identities differ, each with both values; for the error message."""
        return list(_differences(self.identity(), other.identity()))


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, so that its hash identifies them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _differences(mine: dict[str, Any], other: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key in sorted(mine.keys() | other.keys()):
        a, b = mine.get(key), other.get(key)
        name = f"{path}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{name}.")
        elif a != b:
            found.append(f"{name} ({json.dumps(a)} is stored, {json.dumps(b)} is asked for)")
    return found
