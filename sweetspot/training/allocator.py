"""The C library's allocator, told to keep what tensors free."""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_LARGEST = (2**30, 2**25)
"""Bytes from which a block is mapped by itself; the second is the most that glibc before 2.35 takes."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors for the next ones, where its C library is glibc.

    glibc maps every large block by itself and gives it back as soon as it is freed, so that the kernel clears the
    memory of each activation of each step anew: a quarter of the time of a network's pass on one CPU thread
    (``docs/speed.md``). The process stays as large as it once was. PyTorch is told to ask for huge pages, too: the
    processor then looks up fewer addresses, which is another 3 %.

    Returns:
        Whether the allocator can be told so.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by PyTorch at its first allocation
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return any(mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
