"""Our tables, beside Optuna's: what a study needs and Optuna has no place for. Times are UTC, durations seconds."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Double, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, false, true
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

VERSION = 5
"""Of this schema; a database of an older one is migrated (:mod:`sweetspot.store.migrations`), a newer one refused."""


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    # MySQL's FLOAT is single precision.
    type_annotation_map = {dict[str, Any]: JSON, float: Double}  # noqa: RUF012 - SQLAlchemy reads a plain attribute


class SchemaVersion(Base):
    __tablename__ = "sweetspot_schema"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class ArtifactsRow(Base):
    """One row: the id that the artifacts of this database carry, so that others are not taken for them."""

    __tablename__ = "sweetspot_artifacts"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    database: Mapped[str] = mapped_column(String(32))


class StudyRow(Base):
    """A study's configuration and state; the Optuna study of the same name holds its trials."""

    __tablename__ = "sweetspot_study"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    config: Mapped[str] = mapped_column(Text)
    data_hash: Mapped[str] = mapped_column(String(64), index=True)
    created: Mapped[datetime] = mapped_column(default=now)
    ended: Mapped[str | None] = mapped_column(Text, default=None)
    """Why no further trial of the search is asked for although the total is not reached; None: it goes on."""
    test_looks: Mapped[int] = mapped_column(default=0)
    """Confirmations of this study that have looked at the test split."""


class DeletedLooksRow(Base):
    """What a test split cannot be made to forget: how often a study that was deleted had looked at it, and whether its
    test accuracies were written to a table."""

    __tablename__ = "sweetspot_deleted_looks"

    id: Mapped[int] = mapped_column(primary_key=True)
    data_hash: Mapped[str] = mapped_column(String(64), index=True)
    test_looks: Mapped[int]
    was_exported: Mapped[bool]


class RecipeRow(Base):
    __tablename__ = "sweetspot_recipe"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    json: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(default=now)


class SnapshotRow(Base):
    """A teacher at one epoch of a branch (0 is the trunk; otherwise the epoch at which the branch ends)."""

    __tablename__ = "sweetspot_snapshot"

    recipe: Mapped[str] = mapped_column(ForeignKey("sweetspot_recipe.hash"), primary_key=True)
    branch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    weights: Mapped[str] = mapped_column(String(64))
    optimizer: Mapped[str | None] = mapped_column(String(64), default=None)
    """The optimiser's state: at the newest epoch of a branch that may go on, and at branch points."""
    is_branch_point: Mapped[bool] = mapped_column(server_default=true())
    """Whether other runs may go on from here, so that the optimiser's state stays when the trunk grows on."""
    build: Mapped[str] = mapped_column(String(128), server_default="")
    """The torch build and instruction set that trained it: to the bit it repeats on these alone."""
    created: Mapped[datetime] = mapped_column(default=now)
    used: Mapped[datetime | None] = mapped_column(default=None)
    """When it last taught or was trained on from."""


class RequestRow(Base):
    """An epoch that somebody has asked for: whoever trains past it keeps a snapshot, whatever its own ladder."""

    __tablename__ = "sweetspot_request"

    recipe: Mapped[str] = mapped_column(ForeignKey("sweetspot_recipe.hash"), primary_key=True)
    branch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    is_branch_point: Mapped[bool]


class CheckpointRow(Base):
    """Where a training run goes on after a crash: at most one per run, gone when the run has got further."""

    __tablename__ = "sweetspot_checkpoint"

    run: Mapped[str] = mapped_column(String(255), primary_key=True)
    """The lease's name of a branch of a trajectory, or "student/<distillation>/<purpose>/<replicate>"."""
    epoch: Mapped[int]
    """Whole epochs that are done."""
    step: Mapped[int]
    """Steps of the next one that are done."""
    state: Mapped[str] = mapped_column(String(64))
    """The blob with network, optimiser, sum of the epoch's losses and random state."""
    detail: Mapped[dict[str, Any]]
    created: Mapped[datetime] = mapped_column(default=now)


class EpochRow(Base):
    """What was measured at one epoch of a branch, at one temperature, on one probe; entropies in nats."""

    __tablename__ = "sweetspot_epoch"

    recipe: Mapped[str] = mapped_column(ForeignKey("sweetspot_recipe.hash"), primary_key=True)
    branch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    temperature: Mapped[float] = mapped_column(primary_key=True)
    probe: Mapped[str] = mapped_column(String(16), primary_key=True)
    """"train": augmented training images; "validation": the validation split."""
    recomputed: Mapped[bool]
    """True where BatchNorm's statistics were recomputed, as at every snapshot that may teach."""
    train_loss: Mapped[float | None]
    seconds: Mapped[float | None]
    """Of training this epoch, without measuring."""
    response_entropy: Mapped[float]
    similarity_entropy: Mapped[float]
    similarity_information: Mapped[float]
    class_information: Mapped[float]
    image_information: Mapped[float]
    delivered_similarity: Mapped[float]
    target_confidence: Mapped[float]
    non_target_mass: Mapped[float]
    wrong_class_variance: Mapped[float]
    accuracy: Mapped[float]
    nll: Mapped[float]
    ece: Mapped[float]


class ClassSimilarityRow(Base):
    """The mean response of each class at one snapshot of a branch, at one temperature, on training views."""

    __tablename__ = "sweetspot_class_similarity"

    recipe: Mapped[str] = mapped_column(ForeignKey("sweetspot_recipe.hash"), primary_key=True)
    branch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    temperature: Mapped[float] = mapped_column(primary_key=True)
    classes: Mapped[int]
    content: Mapped[bytes] = mapped_column(LargeBinary(2**24 - 1))
    """Compressed: the matrix, float32 row by row, then the images of each class, int64; little endian."""


class ExternalTeacherRow(Base):
    """A teacher that was trained elsewhere: of its training only what its owner says is known, and only here."""

    __tablename__ = "sweetspot_external_teacher"

    weights: Mapped[str] = mapped_column(String(64), primary_key=True)
    """The blob: the SHA-256 of what was given."""
    data_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Of the training images that it is to teach of."""
    model: Mapped[str] = mapped_column(String(255), primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    """What people know it by: as given, or the file's name without its ending."""
    epochs: Mapped[int]
    added: Mapped[datetime] = mapped_column(default=now)


class StudentRow(Base):
    """One trained student: its distillation's hash says what it learned from and how, its index gives its seed."""

    __tablename__ = "sweetspot_student"
    __table_args__ = (UniqueConstraint("distillation", "purpose", "replicate", "test_hash"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    distillation: Mapped[str] = mapped_column(String(64))
    purpose: Mapped[str] = mapped_column(String(16))
    """"search": chosen by; "confirm": fresh seeds, for the verdict."""
    replicate: Mapped[int]
    test_hash: Mapped[str] = mapped_column(String(64), default="")
    """Of the test split that it was looked at with; empty where it was not."""
    study: Mapped[str] = mapped_column(String(255))
    """The study that paid for it."""
    accuracy: Mapped[float]
    """On the validation split, a fraction."""
    curve: Mapped[dict[str, Any]]
    """{"loss": [...], "accuracy": [...]}: mean training loss and validation accuracy of each epoch."""
    seconds: Mapped[float]
    weights: Mapped[str] = mapped_column(String(64))
    """The blob; empty where it was lost."""
    test_accuracy: Mapped[float | None] = mapped_column(default=None)
    test_correct: Mapped[bytes | None] = mapped_column(LargeBinary(2**20), default=None)
    """One bit per test image, packed; null where the test split was not looked at."""
    created: Mapped[datetime] = mapped_column(default=now)


class LeaseRow(Base):
    """Who alone may do a thing: claim a trial of a study, extend a branch."""

    __tablename__ = "sweetspot_lease"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    """The worker's id; empty when free."""
    token: Mapped[int]
    """Rises with every owner: a late writer's token no longer matches."""
    counter: Mapped[int]
    """Rises with every renewal."""
    heading_for: Mapped[int]
    """The epoch that the owner is training to."""


class WorkerRow(Base):
    """A worker process: enough to tell whether it lives, and what it does."""

    __tablename__ = "sweetspot_worker"
    __table_args__ = (Index("sweetspot_worker_study", "study"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    boot_id: Mapped[str] = mapped_column(String(64))
    pid: Mapped[int]
    process_start: Mapped[float]
    """Seconds from the machine's start to the process's."""
    device: Mapped[str] = mapped_column(String(64))
    study: Mapped[str | None] = mapped_column(String(255), default=None)
    trial: Mapped[int | None] = mapped_column(default=None)
    phase: Mapped[str] = mapped_column(String(32), default="starting")
    detail: Mapped[dict[str, Any]]
    """What it trains: batch_size, epochs, epoch, similarity_entropy, images_per_second; as far as they apply."""
    drain: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it was asked to stop."""
    started: Mapped[datetime] = mapped_column(default=now)
    last_seen: Mapped[datetime] = mapped_column(default=now)
