"""`python -m z0` is `z0`."""

import sys

from z0.cli import main

if __name__ == "__main__":
    sys.exit(main())
