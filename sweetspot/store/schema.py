"""Our tables, beside Optuna's: what a study needs and Optuna has no place for. Times are UTC, durations seconds."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

VERSION = 1
"""Of this schema; a database of a newer one is refused."""


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute


class SchemaVersion(Base):
    __tablename__ = "sweetspot_schema"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


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
    resume_only: Mapped[bool] = mapped_column(default=False)
    """True for a point to resume from that is no rung: it goes when a later snapshot lands."""
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
    """What it trains: batch_size, epochs, epoch, similarity_entropy; as far as they apply."""
    started: Mapped[datetime] = mapped_column(default=now)
    last_seen: Mapped[datetime] = mapped_column(default=now)
