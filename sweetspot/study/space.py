"""The search space: a point, its Optuna parameters, and the configuration at a point."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial

from sweetspot.config import Range, StudyConfig

TEACHER_SEED = "teacher.seed"
"""The parameter that says which of a point's teachers it is."""


Others = tuple[tuple[str, float | str], ...]
"""What is searched beside batch size and epochs: Optuna's parameter names with values, by name."""


@dataclass(frozen=True)
class Trajectory:
    """What tells the trajectories of a study apart: the batch size, and what else is searched of the teacher."""

    batch_size: int
    others: Others


@dataclass(frozen=True)
class Point:
    """A batch size and a number of epochs, with whatever else is searched, under Optuna's parameter names."""

    batch_size: int
    epochs: int
    others: Others = ()

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Point":
        """The point of a trial's parameters."""
        others = tuple(sorted((k, v) for k, v in params.items() if k not in ("batch_size", "epochs")))
        return cls(params["batch_size"], params["epochs"], others)

    @property
    def params(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "epochs": self.epochs, **dict(self.others)}

    @property
    def trajectory(self) -> Trajectory:
        """The one that its teacher is a snapshot of."""
        return Trajectory(self.batch_size, _of("teacher.", self.others))

    @property
    def of_students(self) -> Others:
        """What is searched of its students."""
        return _of("student.", self.others)

    def having(self, **others: float | str) -> "Point":
        """This point with further parameters; "__" stands for "."."""
        changed = dict(self.others) | {name.replace("__", "."): value for name, value in others.items()}
        return Point(self.batch_size, self.epochs, tuple(sorted(changed.items())))

    def __str__(self) -> str:
        others = "".join(f", {name.split('.')[-1]} {shown(value)}" for name, value in self.others)
        return f"batch {self.batch_size}, {self.epochs} epoch{'s' * (self.epochs != 1)}{others}"


def params_of(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's parameters; of one that waits, or has just begun, those that it is to have."""
    return dict(trial.params | trial.system_attrs.get("fixed_params", {}))


def point_of(trial: FrozenTrial) -> Point | None:
    """The point of a search's trial; None where it has none yet."""
    params = params_of(trial)
    return Point.of(params) if {"batch_size", "epochs"} <= params.keys() else None


@dataclass(frozen=True)
class ExternalPoint:
    """A teacher that was trained elsewhere, with whatever else of its students is searched. Its name makes no other.

    Attributes:
        weights: the blob of its weights.
        model: the name of its network.
        name: what people know it by.
        epochs: that it was trained, as far as its owner says.
    """

    weights: str
    model: str
    name: str = field(compare=False)
    epochs: int
    others: Others = ()

    @property
    def params(self) -> dict[str, Any]:
        """As JSON keeps it; :func:`source_of` reads it."""
        return {
            "weights": self.weights,
            "model": self.model,
            "name": self.name,
            "epochs": self.epochs,
            **dict(self.others),
        }

    def __str__(self) -> str:
        return f"{self.name} ({self.model}, {self.epochs} epoch{'s' * (self.epochs != 1)})"


AnyPoint = Point | ExternalPoint
"""Where a teacher comes from: trained here at a point, or elsewhere."""


@dataclass(frozen=True)
class Alone:
    """No teacher: students learn from labels alone.

    Attributes:
        label_smoothing: share of the label's probability that all classes get alike.
    """

    label_smoothing: float = 0.0

    @property
    def params(self) -> dict[str, Any]:
        """As JSON keeps it; :func:`source_of` reads it."""
        return {"label_smoothing": self.label_smoothing}

    def __str__(self) -> str:
        return f"label smoothing {self.label_smoothing:g}" if self.label_smoothing else ""


Source = AnyPoint | Alone
"""What students learn from."""


def _of(prefix: str, others: Others) -> Others:
    return tuple((name, value) for name, value in others if name.startswith(prefix))


def source_of(params: Mapping[str, Any]) -> Source:
    """What ``params`` of any kind of source gave."""
    if "label_smoothing" in params:
        return Alone(params["label_smoothing"])
    if "weights" not in params:
        return Point.of(params)
    own = {key: params[key] for key in ("weights", "model", "name", "epochs")}
    return ExternalPoint(**own, others=tuple(sorted((k, v) for k, v in params.items() if k not in own)))


def shown(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def distributions(config: StudyConfig) -> dict[str, BaseDistribution]:
    """The Optuna distributions of what is searched, by parameter name. Sorted true values keep a dashboard readable."""
    search = config.search
    space: dict[str, BaseDistribution] = {
        "batch_size": CategoricalDistribution(search.batch_size),
        "epochs": CategoricalDistribution(search.ladder),
    }
    ranges = {
        "student.temperature": search.student.temperature,
        "student.alpha": search.student.alpha,
        "teacher.lr": search.teacher.lr,
    }
    space |= {name: _float(range_) for name, range_ in ranges.items() if range_ is not None}
    if search.teacher.model is not None:
        space["teacher.model"] = CategoricalDistribution(search.teacher.model)
    if search.teacher.seeds is not None:
        space[TEACHER_SEED] = CategoricalDistribution(range(search.teacher.seeds))
    return space


def _float(range_: Range) -> FloatDistribution:
    return FloatDistribution(range_.low, range_.high, log=range_.log)


def points(config: StudyConfig) -> list[Point] | None:
    """Every point of the space, or None where it is continuous."""
    space = distributions(config)
    choices = []
    for name, distribution in space.items():
        if not isinstance(distribution, CategoricalDistribution):
            return None
        choices.append([(name, choice) for choice in distribution.choices])
    return [Point.of(dict(combination)) for combination in itertools.product(*choices)]


def suggest(trial: optuna.Trial, config: StudyConfig) -> Point:
    """Suggest all of a trial's parameters at once."""
    params: dict[str, Any] = {}
    for name, distribution in distributions(config).items():
        if isinstance(distribution, CategoricalDistribution):
            params[name] = trial.suggest_categorical(name, distribution.choices)
        elif isinstance(distribution, FloatDistribution):
            params[name] = trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    return Point.of(params)


def config_at(config: StudyConfig, point: Point | ExternalPoint) -> StudyConfig:
    """The configuration with the point's further parameters in their places."""
    others = dict(point.others)
    if isinstance(point, ExternalPoint):
        others["teacher.model"] = point.model
    student = {key: others[f"student.{key}"] for key in ("temperature", "alpha") if f"student.{key}" in others}
    teacher: dict[str, Any] = {}
    if "teacher.model" in others:
        teacher["model"] = others["teacher.model"]
    if TEACHER_SEED in others:
        teacher["seed"] = others[TEACHER_SEED]
    if "teacher.lr" in others:
        teacher["optimizer"] = config.teacher.optimizer.model_copy(update={"lr": others["teacher.lr"]})
    return config.model_copy(
        update={
            "student": config.student.model_copy(update=student),
            "teacher": config.teacher.model_copy(update=teacher),
        }
    )
