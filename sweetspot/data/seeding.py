"""Seeds for everything that is random: each is a hash of what it is for, so that no two uses share a stream."""

import hashlib
import json


def seed_of(*parts: int | str) -> int:
    """A seed in ``[0, 2**63)`` that depends on the parts, their types and their order, and on nothing else.

    The same on every machine and in every version: the first 63 bits of the SHA-256 of the parts as a JSON list.
    """
    text = json.dumps(parts, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
