"""Teachers' responses that are kept, because a snapshot may teach again: more replicates, another temperature.

A response belongs to a snapshot and to the views it was asked about; students take theirs by the images' indices, in
whatever order they see them.
"""

from collections.abc import Callable, Hashable

from torch import Tensor

LIMIT = 2**29
"""Bytes of responses that are kept, on the device: 28 epochs of 45,000 views in 100 classes."""


class SnapshotResponses:
    """The responses of one snapshot.

    Args:
        limit: bytes that are kept; what comes after those is asked for each time.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._size = 0
        self._known: dict[Hashable, Tensor] = {}

    def get(self, views: Hashable, respond: Callable[[], Tensor]) -> Tensor:
        """The response to these views: float32 (N, K), in the order of the images; nobody may change it.

        Args:
            views: what identifies them.
            respond: asks the snapshot, where it is not known.
        """
        response = self._known.get(views)
        if response is None:
            response = respond()
            size = response.numel() * response.element_size()
            if self._size + size <= self._limit:
                self._known[views] = response
                self._size += size
        return response


class ResponseCache:
    """The responses of the snapshot that taught last.

    Args:
        limit: bytes that are kept.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._snapshot: Hashable = None
        self._responses = SnapshotResponses()

    def of(self, snapshot: Hashable) -> SnapshotResponses:
        """Those of this snapshot; those of any other are forgotten."""
        if snapshot != self._snapshot:
            self._snapshot, self._responses = snapshot, SnapshotResponses(self._limit)
        return self._responses
