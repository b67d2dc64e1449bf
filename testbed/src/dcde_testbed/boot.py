"""The one program that runs inside the world with nothing but the standard library: `boot.py WHAT [ARGUMENT...]`.

It is started by path with `python3 -I`, so it finds its package by its own place.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True


def main(what: str, *arguments: str) -> int:
    """Run one of the world's own programs and return its exit status."""
    if what == "world":
        from dcde_testbed import inside

        return inside.main()
    if what == "node":
        from dcde_testbed import node

        return node.launch(*arguments)
    if what == "door":
        from dcde_testbed import door

        return door.main(*arguments)
    raise SystemExit(f"unknown program {what!r}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
