"""An embedded corpus and a prompt, so that the software can be heard without any recordings."""

import hashlib


def draw(name: str, n: int) -> int:
    """A number from 0 to ``n - 1`` by a hash of a name: the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % n
