"""`python -m tokmesh` is the command `tokmesh`."""

import sys

from tokmesh.cli import main

if __name__ == "__main__":
    sys.exit(main())
