"""`python -m dcde` is the `dcde` command."""

from dcde.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
