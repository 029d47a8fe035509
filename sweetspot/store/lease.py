"""Leases: who alone may do a thing, by compare-and-set on a row; never an open transaction."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from types import TracebackType

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from sweetspot.store.database import Database
from sweetspot.store.outage import DatabaseDownError, outlasting
from sweetspot.store.schema import LeaseRow

_log = logging.getLogger(__name__)
_LOOKS = 8
"""At least so often a lease is looked at before it is taken from a silent owner."""


class LostLeaseError(Exception):
    """Another worker has taken the lease over: what was done under it must not be written."""


@dataclass
class Lease:
    """A lease that is held. A context manager: released on the way out.

    The fencing token belongs to this holding alone; whoever writes under the lease calls :meth:`check` in the same
    transaction, so that the rows of a holder that was taken for dead bounce.
    """

    name: str
    token: int
    _leases: "Leases" = field(repr=False)
    is_lost: bool = field(default=False, init=False)
    """Whether it is known that another worker has taken it over: what is done under it is in vain."""
    is_released: bool = field(default=False, init=False)

    def check(self, session: Session) -> None:
        """Renew within the caller's transaction, which then holds the row until it ends.

        Raises:
            LostLeaseError: if the lease has another owner by now.
        """
        renewed = session.execute(
            update(LeaseRow)
            .where(LeaseRow.name == self.name, LeaseRow.token == self.token, LeaseRow.owner == self._leases.owner)
            .values(counter=LeaseRow.counter + 1)
        )
        if renewed.rowcount != 1:  # type: ignore[attr-defined]
            raise LostLeaseError(self.name)

    def release(self) -> None:
        """Free it. Harmless when it is lost or free already."""
        if not self.is_released:
            self._leases.release(self)
            self.is_released = True

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def free_leases(session: Session, owners: Collection[str]) -> None:
    """Free whatever these workers hold: they are taken for dead."""
    session.execute(update(LeaseRow).where(LeaseRow.owner.in_(owners)).values(owner=""))


@dataclass
class _Silence:
    """Of a lease whose token and counter have not moved: seconds of silence that were observed, and the last look."""

    token: int
    counter: int
    seconds: float
    looked: float


class Leases:
    """The leases of one worker: takes, renews and frees them.

    A lease is taken over when its counter has not moved for ``expiry`` seconds on *this* worker's monotonic clock (no
    two machines' clocks are compared), or at once when its owner is known to be dead. Only time in which this worker
    looks again and again counts: in an outage of the database, or while this worker was stopped, nobody is silent.

    Args:
        database: the shared database.
        owner: this worker's id.
        expiry: seconds without a renewal after which an owner is taken for dead.
        is_dead: tells of an owner's id whether its process is known to have ended.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        expiry: float,
        is_dead: Callable[[str], bool] = lambda owner: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.owner = owner
        self.outages = database.outages
        self._session = database.session
        self._expiry = expiry
        self._is_dead = is_dead
        self._clock = clock
        self._seen: dict[str, _Silence] = {}
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @outlasting
    def acquire(self, name: str, heading_for: int = 0) -> Lease | None:
        """The lease, or None while another worker holds it."""
        with self._session.begin() as session:
            row = session.get(LeaseRow, name)
        if row is None:
            try:
                with self._session.begin() as session:
                    session.add(LeaseRow(name=name, owner=self.owner, token=1, counter=0, heading_for=heading_for))
            except IntegrityError:  # somebody was faster
                return None
            return self._hold(Lease(name, 1, self))
        if row.owner and not self._abandoned(row):
            return None
        with self._session.begin() as session:
            taken = session.execute(
                update(LeaseRow)
                .where(LeaseRow.name == name, LeaseRow.token == row.token, LeaseRow.counter == row.counter)
                .where(LeaseRow.owner == row.owner)
                .values(owner=self.owner, token=row.token + 1, counter=0, heading_for=heading_for)
            )
        if taken.rowcount != 1:  # type: ignore[attr-defined]
            return None
        return self._hold(Lease(name, row.token + 1, self))

    def _hold(self, lease: Lease) -> Lease:
        with self._lock:
            self._held[lease.name] = lease
        self._seen.pop(lease.name, None)
        return lease

    def _abandoned(self, row: LeaseRow) -> bool:
        if row.owner == self.owner:  # its acknowledgement, or that of its release, was lost
            with self._lock:
                return row.name not in self._held
        there, now = self._seen.get(row.name), self._clock()
        has_moved = there is not None and (there.token, there.counter) != (row.token, row.counter)
        if not has_moved and self._is_dead(row.owner):  # of one that goes from hand to hand, not at every look
            return True
        if there is None or has_moved:
            self._seen[row.name] = _Silence(row.token, row.counter, 0.0, now)
            return False
        there.seconds += min(now - there.looked, self._expiry / _LOOKS)
        there.looked = now
        return there.seconds > self._expiry

    @outlasting
    def confirm(self, lease: Lease) -> None:
        """Renew a lease, before something that only its holder may do.

        Raises:
            LostLeaseError: if it has another owner by now.
        """
        with self._session.begin() as session:
            lease.check(session)

    @outlasting
    def release(self, lease: Lease) -> None:
        with self._lock:
            if self._held.get(lease.name) is lease:
                del self._held[lease.name]
        with self._session.begin() as session:
            session.execute(
                update(LeaseRow).where(LeaseRow.name == lease.name, LeaseRow.token == lease.token).values(owner="")
            )

    @outlasting
    def free_of_dead(self) -> None:
        """Free the leases whose owner is known to be dead: nobody may need them again."""
        with self._session() as session:
            owners = set(session.scalars(select(LeaseRow.owner).where(LeaseRow.owner.not_in(("", self.owner)))))
        dead = {owner for owner in owners if self._is_dead(owner)}
        if dead:
            with self._session.begin() as session:
                free_leases(session, dead)

    @outlasting
    def renew(self) -> None:
        """Renew every lease that is held; one that is lost says so from then on."""
        with self._lock:
            held = list(self._held.values())
        for lease in held:
            try:
                with self._session.begin() as session:
                    lease.check(session)
            except LostLeaseError:
                lease.is_lost = True
                with self._lock:
                    if self._held.get(lease.name) is lease:
                        del self._held[lease.name]

    def keep_renewing(self, seconds: float) -> None:
        """Renew every so many seconds, in a thread that ends with the process or :meth:`stop_renewing`."""

        def run() -> None:
            while not self._stop.wait(seconds):
                try:
                    self.renew()
                except (SQLAlchemyError, DatabaseDownError) as error:
                    _log.info("leases not renewed, will retry: %s", type(error).__name__)

        threading.Thread(target=run, name="leases", daemon=True).start()

    def stop_renewing(self) -> None:
        self._stop.set()

    @outlasting
    def held_by_others(self, prefix: str) -> dict[str, int]:
        """Names (without ``prefix``) of the leases that other workers hold, with the epoch each is heading for.

        A lease whose owner is known to be dead is as good as free.
        """
        with self._session() as session:
            named = LeaseRow.name.startswith(prefix, autoescape=True)
            rows = session.scalars(select(LeaseRow).where(named, LeaseRow.owner.not_in(("", self.owner))))
            return {
                row.name.removeprefix(prefix): row.heading_for
                for row in rows
                if row.name.startswith(prefix)  # SQLite's LIKE ignores case
                if not self._is_dead(row.owner)
            }
