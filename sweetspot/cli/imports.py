"""Imports of what is large, made quicker."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """While the block imports PyTorch, no garbage is looked for; what it made is never looked through again.

    Modules live as long as their process. Looking through PyTorch's takes 0.13 s, and happens several times before a
    worker has its first trial; kept out of it for good, later collections take a millisecond.
    """
    if "torch" in sys.modules or not gc.isenabled():  # whoever calls has imported what is large, or knows better
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
