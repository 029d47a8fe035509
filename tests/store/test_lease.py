import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from sweetspot.store import Leases, LostLeaseError, Store
from sweetspot.store.schema import LeaseRow

EXPIRY = 60.0


class Clock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


Worker = Callable[..., Leases]


@pytest.fixture
def worker(open_store: Callable[[], Store]) -> Worker:
    """The leases of one more worker, which has a connection and a clock of its own."""

    def make(owner: str, clock: Clock | None = None, dead: tuple[str, ...] = ()) -> Leases:
        return Leases(open_store().database, owner, EXPIRY, lambda other: other in dead, clock or Clock())

    return make


def _row(store: Store, name: str = "branch") -> LeaseRow:
    with store.database.session() as session:
        return session.scalars(select(LeaseRow).where(LeaseRow.name == name)).one()


# -- exclusive --------------------------------------------------------------------------------------------------------


def test_a_lease_has_one_holder(worker: Worker) -> None:
    ann, bob = worker("ann"), worker("bob")
    assert ann.acquire("branch") is not None
    assert bob.acquire("branch") is None


def test_a_worker_does_not_get_the_lease_it_holds_a_second_time(worker: Worker) -> None:
    ann = worker("ann")
    assert ann.acquire("branch") is not None
    assert ann.acquire("branch") is None


def test_leases_of_different_names_do_not_meet(worker: Worker) -> None:
    ann, bob = worker("ann"), worker("bob")
    assert ann.acquire("branch 10") is not None
    assert bob.acquire("branch 20") is not None


def test_a_released_lease_is_free_at_once(worker: Worker) -> None:
    ann, bob = worker("ann"), worker("bob")
    with ann.acquire("branch") or pytest.fail("it was free"):
        assert bob.acquire("branch") is None
    lease = bob.acquire("branch")
    assert lease is not None
    lease.release()
    lease.release()
    assert ann.acquire("branch") is not None


def test_a_lease_is_released_when_its_work_fails(worker: Worker) -> None:
    ann, bob = worker("ann"), worker("bob")
    with pytest.raises(ZeroDivisionError), ann.acquire("branch") or pytest.fail("it was free"):
        raise ZeroDivisionError
    assert bob.acquire("branch") is not None


def test_every_holding_has_a_token_of_its_own(worker: Worker) -> None:
    tokens = []
    for leases in (worker("ann"), worker("bob"), worker("ann")):
        with leases.acquire("branch") or pytest.fail("it was free") as lease:
            tokens.append(lease.token)
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("state", ["new", "free", "abandoned"])
def test_of_two_threads_that_race_for_a_lease_exactly_one_wins(state: str, worker: Worker) -> None:
    if state != "new":
        before = worker("before").acquire("branch")
        assert before is not None
        if state == "free":
            before.release()
    racers = [worker(name, dead=("before",)) for name in ("ann", "bob")]
    barrier = threading.Barrier(2)

    def race(leases: Leases) -> bool:
        barrier.wait(60)
        return leases.acquire("branch") is not None

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(race, racers)) == [False, True]


# -- taken over -------------------------------------------------------------------------------------------------------


def test_a_silent_owners_lease_is_taken_over_after_the_expiry_on_the_waiters_own_clock(worker: Worker) -> None:
    clock = Clock(5000.0)
    ann, bob = worker("ann", Clock(1e9)), worker("bob", clock)
    assert ann.acquire("branch") is not None
    assert bob.acquire("branch") is None  # from now on bob watches
    for _ in range(64):
        clock.now += EXPIRY / 64
        assert bob.acquire("branch") is None
    clock.now += 0.001
    assert bob.acquire("branch") is not None


def test_time_in_which_nobody_looked_does_not_count_as_silence(worker: Worker) -> None:
    """An outage of the database: its end finds nobody renewed, and nobody dead."""
    clock = Clock()
    ann, bob = worker("ann"), worker("bob", clock)
    lease = ann.acquire("branch")
    assert bob.acquire("branch") is None
    for _ in range(5):
        clock.now += 10 * EXPIRY
        assert bob.acquire("branch") is None
    ann.renew()
    assert lease is not None
    assert not lease.is_lost


def test_a_lease_whose_acknowledgement_was_lost_is_taken_again_at_once(worker: Worker) -> None:
    lost = worker("ann").acquire("branch")
    assert lost is not None
    again = worker("ann").acquire("branch")  # the same worker, which does not know that it holds it
    assert again is not None
    assert again.token > lost.token
    assert worker("bob").acquire("branch") is None


def test_a_waiters_first_look_never_takes_over_however_late_it_comes(worker: Worker) -> None:
    assert worker("ann").acquire("branch") is not None
    assert worker("bob", Clock(1e9)).acquire("branch") is None


def test_a_lease_that_is_renewed_is_never_taken_over(worker: Worker) -> None:
    clock = Clock()
    ann, bob = worker("ann"), worker("bob", clock)
    assert ann.acquire("branch") is not None
    for _ in range(5):
        assert bob.acquire("branch") is None
        clock.now += 10 * EXPIRY
        ann.renew()
    assert bob.acquire("branch") is None


def test_writing_under_a_lease_renews_it(worker: Worker, store: Store) -> None:
    clock = Clock()
    ann, bob = worker("ann"), worker("bob", clock)
    lease = ann.acquire("branch")
    assert lease is not None
    assert bob.acquire("branch") is None
    clock.now += 10 * EXPIRY
    with store.database.session.begin() as session:
        lease.check(session)
    assert bob.acquire("branch") is None


def test_the_next_holder_is_watched_anew(worker: Worker) -> None:
    clock = Clock()
    ann, bob, eve = worker("ann"), worker("bob", clock), worker("eve")
    lease = ann.acquire("branch")
    assert lease is not None
    assert bob.acquire("branch") is None
    lease.release()
    assert eve.acquire("branch") is not None  # with the counter at which ann's stood
    clock.now += 10 * EXPIRY
    assert bob.acquire("branch") is None


def test_a_dead_owners_lease_is_taken_over_at_once(worker: Worker) -> None:
    assert worker("ann").acquire("branch") is not None
    assert worker("bob", dead=("ann",)).acquire("branch") is not None


def test_only_one_waiter_takes_over(worker: Worker) -> None:
    clock = Clock()
    ann, bob, eve = worker("ann"), worker("bob", clock), worker("eve", clock)
    assert ann.acquire("branch") is not None
    assert (bob.acquire("branch"), eve.acquire("branch")) == (None, None)
    for _ in range(10):
        clock.now += EXPIRY / 10
        assert (bob.acquire("branch"), eve.acquire("branch")) == (None, None)
    clock.now += 0.001
    assert eve.acquire("branch") is not None
    assert bob.acquire("branch") is None


# -- the late writer --------------------------------------------------------------------------------------------------


def test_a_late_writers_rows_bounce_off_the_fencing_token(worker: Worker, store: Store) -> None:
    late = worker("ann").acquire("branch")
    assert late is not None
    assert worker("bob", dead=("ann",)).acquire("branch") is not None

    def write_late() -> None:
        with store.database.session.begin() as session:
            session.add(LeaseRow(name="written late", owner="ann", token=1, counter=0, heading_for=0))
            session.flush()
            late.check(session)

    with pytest.raises(LostLeaseError, match="branch"):
        write_late()
    with store.database.session() as session:
        assert session.get(LeaseRow, "written late") is None


def test_a_late_writer_bounces_even_when_it_holds_the_lease_again(worker: Worker, store: Store) -> None:
    ann = worker("ann")
    late = ann.acquire("branch")
    taken = worker("bob", dead=("ann",)).acquire("branch")
    assert late is not None
    assert taken is not None
    taken.release()
    again = ann.acquire("branch")
    assert again is not None
    with pytest.raises(LostLeaseError), store.database.session.begin() as session:
        late.check(session)
    with store.database.session.begin() as session:
        again.check(session)


def test_who_has_released_may_write_no_more(worker: Worker, store: Store) -> None:
    lease = worker("ann").acquire("branch")
    assert lease is not None
    lease.release()
    with pytest.raises(LostLeaseError), store.database.session.begin() as session:
        lease.check(session)


def test_a_losers_release_does_not_free_the_winners_lease(worker: Worker) -> None:
    late = worker("ann").acquire("branch")
    assert late is not None
    assert worker("bob", dead=("ann",)).acquire("branch") is not None
    late.release()
    assert worker("eve").acquire("branch") is None


def test_a_losers_renewal_does_not_keep_the_winners_lease_alive(worker: Worker, store: Store) -> None:
    ann = worker("ann")
    assert ann.acquire("branch") is not None
    assert worker("bob", dead=("ann",)).acquire("branch") is not None
    before = _row(store).counter
    ann.renew()
    assert _row(store).counter == before
    assert _row(store).owner == "bob"


def test_one_lost_lease_does_not_keep_the_others_from_being_renewed(worker: Worker, store: Store) -> None:
    ann = worker("ann")
    assert ann.acquire("lost") is not None
    assert ann.acquire("kept") is not None
    with store.database.session.begin() as session:
        session.execute(update(LeaseRow).where(LeaseRow.name == "lost").values(owner="bob", token=2))
    ann.renew()
    assert _row(store, "kept").counter == 1


def test_a_checked_writer_is_not_overtaken_before_it_commits(worker: Worker, store: Store) -> None:
    lease = worker("ann").acquire("branch")
    assert lease is not None
    with store.database.session.begin() as session:
        lease.check(session)
        assert _is_locked(store)
    assert not _is_locked(store)


def _is_locked(store: Store) -> bool:
    """Whether a transaction holds the row of the lease; on SQLite, the database."""
    is_sqlite = store.url.get_backend_name() == "sqlite"
    with store.database.engine.connect() as connection:
        if is_sqlite:
            connection.execute(text("pragma busy_timeout = 0"))
        try:
            connection.execute(
                text("begin immediate" if is_sqlite else "select * from sweetspot_lease for update nowait")
            )
        except OperationalError:
            return True
        finally:
            connection.rollback()
            connection.invalidate()
        return False


# -- seen by the search -----------------------------------------------------------------------------------------------


def test_the_leases_of_others_are_listed_with_where_they_are_heading(worker: Worker) -> None:
    ann, bob = worker("ann"), worker("bob")
    assert ann.acquire("trajectory/a_b", heading_for=30) is not None
    assert ann.acquire("trajectory/aXb", heading_for=40) is not None
    assert bob.acquire("trajectory/mine", heading_for=50) is not None
    assert ann.acquire("claim/a_b") is not None
    assert ann.acquire("Trajectory/a_b", heading_for=70) is not None
    with ann.acquire("trajectory/freed", heading_for=60) or pytest.fail("it was free"):
        pass
    assert bob.held_by_others("trajectory/") == {"a_b": 30, "aXb": 40}
    assert bob.held_by_others("trajectory/a_") == {"b": 30}


def test_a_lease_that_changes_hands_says_where_its_new_owner_is_heading(worker: Worker) -> None:
    assert worker("ann").acquire("branch", heading_for=30) is not None
    assert worker("bob", dead=("ann",)).acquire("branch", heading_for=70) is not None
    assert worker("eve").held_by_others("") == {"branch": 70}
