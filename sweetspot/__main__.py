"""``python -m sweetspot``: the command line."""

import sys

from sweetspot.cli import main

if __name__ == "__main__":
    sys.exit(main())
