"""Doctor: what a run would need, looked at without starting one and without making anything.

Nothing that may be broken is imported before the check that looks at it.
"""

from sweetspot.workers.doctor.check import Check
from sweetspot.workers.doctor.examination import examine

__all__ = ["Check", "examine"]
