"""The interface that embedders compile against: it may change, but not unnoticed."""

import hashlib
import json
import re
from pathlib import Path

from feedhandler import abi

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "abi.json"


def digest() -> str:
    """Return a digest of all interfaces, without comments and docstrings."""
    whole = hashlib.blake2b(digest_size=16)
    for path in sorted((ROOT / "feedhandler").rglob("*.pxd")):
        text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
        lines = [
            re.sub(r"\s+#.*|^#.*", "", line).rstrip() for line in text.splitlines()
        ]
        whole.update(path.relative_to(ROOT).as_posix().encode())
        whole.update("\n".join(line for line in lines if line).encode())
    return whole.hexdigest()


def test_a_changed_interface_comes_with_a_new_abi_number():
    recorded = json.loads(GOLDEN.read_text())

    assert recorded == {"abi": abi.number(), "digest": digest()}, (
        "a .pxd changed. If embedders must be rebuilt (a field, a signature, a method "
        "that is not the last of its class), bump ABI in feedhandler/abi.pxd; then "
        "record the new digest: python -m tests.test_abi"
    )


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({"abi": abi.number(), "digest": digest()}) + "\n")
