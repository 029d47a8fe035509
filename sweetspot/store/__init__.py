"""What outlives a process: the shared database and the artifacts."""

from sweetspot.store.artifacts import Artifacts, DamagedBlobError
from sweetspot.store.external import ExternalTeacher
from sweetspot.store.lease import Lease, Leases, LostLeaseError
from sweetspot.store.store import Store
from sweetspot.store.students import Student
from sweetspot.store.studies import StudyRecord
from sweetspot.store.trajectories import TRUNK, ClassSimilarity, Measurement, Probe, Snapshot
from sweetspot.store.workers import WorkerRecord

__all__ = [
    "TRUNK", "Artifacts", "ClassSimilarity", "DamagedBlobError", "ExternalTeacher", "Lease", "Leases",
    "LostLeaseError", "Measurement", "Probe", "Snapshot", "Store", "Student", "StudyRecord", "WorkerRecord",
]  # fmt: skip
