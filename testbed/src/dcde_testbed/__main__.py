"""`python -m dcde_testbed` is the command `dcde-testbed`."""

import sys

from dcde_testbed.cli import main

if __name__ == "__main__":
    sys.exit(main())
