"""The allocator keeps what tensors free, where it can."""

import platform
import subprocess
import sys

import pytest

from sweetspot.training.allocator import keep_freed_memory


def has_new_glibc() -> bool:
    """Before 2.35 blocks above 32 MiB are mapped by themselves all the same."""
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)


@pytest.mark.skipif(not has_new_glibc(), reason="needs glibc 2.35")
@pytest.mark.parametrize("kept", [True, False])
def test_memory_that_was_freed_is_used_again_without_the_kernel(kept: bool) -> None:
    """The kernel clears a page at its first use after it was mapped: a minor fault."""
    code = f"""if True:
        import resource
        import torch
        from sweetspot.training.allocator import keep_freed_memory
        if {kept}:
            assert keep_freed_memory()

        def faults():
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

        for _ in range(30):  # until there is a block that fits, with its alignment
            torch.ones(2**24)
        before = faults()
        for _ in range(10):
            torch.ones(2**24)
        print((faults() - before) * resource.getpagesize() / (10 * 2**26))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    share = float(done.stdout)
    assert share < 0.1 if kept else share > 0.001  # with huge pages a fault maps 512 times as much


def test_without_such_an_allocator_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """A C library without mallopt."""

    monkeypatch.setattr("ctypes.CDLL", lambda name: Other())
    assert not keep_freed_memory()
