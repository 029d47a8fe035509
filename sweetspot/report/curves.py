"""What the store knows of a study's teachers along their epochs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select

from sweetspot.store import TRUNK, Store, StudyRecord
from sweetspot.store.schema import EpochRow
from sweetspot.study.space import Others, Point, Trajectory
from sweetspot.study.visit import recipe_at
from sweetspot.teacher.recipe import Recipe
from sweetspot.teacher.trajectory import branch_of

MOST_CURVES = 60
"""So many teachers are read at most: the first of those that are asked for."""

_CHUNK = 20
_MEASURES = (
    EpochRow.similarity_entropy,
    EpochRow.similarity_information,
    EpochRow.delivered_similarity,
)


@dataclass(frozen=True)
class CurvePoint:
    """A teacher after so many epochs: similarity on training views (nats), accuracy on validation (a fraction)."""

    epochs: int
    steps: int
    similarity_entropy: float
    similarity_information: float
    delivered_similarity: float
    teacher_accuracy: float


@dataclass(frozen=True)
class TeacherCurve:
    """The trajectory of one teacher of a study.

    Attributes:
        others: what else is searched of the teacher, under Optuna's parameter names.
        trunk: every epoch that longer runs share, measured with BatchNorm as it was in training, except at rungs.
        teachers: of the rungs of the ladder, as a trial would distill from them.
    """

    batch_size: int
    others: Others
    trunk: tuple[CurvePoint, ...]
    teachers: tuple[CurvePoint, ...]


def read_curves(
    store: Store, record: StudyRecord, points: Iterable[Point], train_images: int
) -> tuple[TeacherCurve, ...]:
    """The trajectories of the teachers of ``points``, by batch size; those of which nothing is measured left out."""
    config = record.config
    recipes: dict[Trajectory, Recipe] = {}
    for point in points:
        if point.trajectory not in recipes:
            if len(recipes) == MOST_CURVES:
                break
            recipes[point.trajectory] = recipe_at(config, record.data_hash, point)
    measured = _read(store, [recipe.hash for recipe in recipes.values()], config.teacher.probe_temperature)
    curves = [
        _curve(recipe, one.others, measured.get(recipe.hash, {}), config.search.ladder, train_images // one.batch_size)
        for one, recipe in sorted(recipes.items(), key=lambda item: (item[0].batch_size, str(item[0].others)))
    ]
    return tuple(curve for curve in curves if curve.trunk or curve.teachers)


@dataclass
class _Row:
    """Both probes of one epoch."""

    views: tuple[float, float, float] | None = None
    accuracy: float | None = None
    recomputed: bool = True

    def at(self, epochs: int, steps: int) -> CurvePoint | None:
        """None where a probe is missing."""
        if self.views is None or self.accuracy is None:
            return None
        return CurvePoint(epochs, steps, *self.views, self.accuracy)


_Rows = dict[tuple[int, int], _Row]
"""By (branch, epoch)."""


def _curve(recipe: Recipe, others: Others, rows: _Rows, ladder: Sequence[int], steps: int) -> TeacherCurve:
    """``steps``: of one epoch."""
    shared = recipe.schedule.shared_epochs(ladder[-1])
    trunk = [
        row.at(epoch, epoch * steps)
        for (branch, epoch), row in sorted(rows.items())
        if branch == TRUNK and epoch <= shared
    ]
    rungs = [(epochs, rows.get((branch_of(recipe, epochs), epochs))) for epochs in ladder]
    teachers = [row.at(epochs, epochs * steps) for epochs, row in rungs if row is not None and row.recomputed]
    return TeacherCurve(
        recipe.batch_size,
        others,
        tuple(point for point in trunk if point is not None),
        tuple(point for point in teachers if point is not None),
    )


def _read(store: Store, recipes: Sequence[str], temperature: float) -> dict[str, _Rows]:
    """The epochs of trunks and the ends of branches, by recipe and (branch, epoch)."""

    def read() -> dict[str, _Rows]:
        found: dict[str, _Rows] = {}
        with store.database.session() as session:
            for start in range(0, len(recipes), _CHUNK):
                rows = session.execute(
                    select(
                        EpochRow.recipe, EpochRow.branch, EpochRow.epoch, EpochRow.probe, EpochRow.recomputed,
                        EpochRow.accuracy, *_MEASURES,
                    ).where(
                        EpochRow.recipe.in_(recipes[start : start + _CHUNK]),
                        EpochRow.temperature == temperature,
                        or_(EpochRow.branch == TRUNK, EpochRow.epoch == EpochRow.branch),
                    )
                )  # fmt: skip
                for recipe, branch, epoch, probe, recomputed, accuracy, entropy, information, delivered in rows:
                    row = found.setdefault(recipe, {}).setdefault((branch, epoch), _Row())
                    row.recomputed &= recomputed
                    if probe == "train":
                        row.views = entropy, information, delivered
                    else:
                        row.accuracy = accuracy
        return found

    return store.database.outages.outlast(read)
