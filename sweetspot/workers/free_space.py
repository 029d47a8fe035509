"""Whether the disk has room for a run, asked before it starts."""

from sweetspot.errors import UserError
from sweetspot.store import Store
from sweetspot.store.url import shown


def check_free_space(store: Store, needed: int) -> None:
    """Refuse a run that the disk of the artifacts has no room for.

    Args:
        needed: the most that the run may store, in bytes.

    Raises:
        UserError: if that is more than the disk has left.
    """
    free = store.artifacts.free_bytes()
    if free is not None and needed > free:
        from sweetspot.report.text import size  # which imports what terminals need

        raise UserError(
            f"the artifacts in {shown(store.artifacts_url)} may grow by {size(needed)}, and the disk has {size(free)} "
            "left: free some (sweetspot snapshots gc), or give --artifacts another place"
        )
