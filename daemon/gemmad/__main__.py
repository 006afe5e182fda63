"""`python -m gemmad` is `gemmad`."""

import sys

from gemmad.app import main

if __name__ == "__main__":
    sys.exit(main())
