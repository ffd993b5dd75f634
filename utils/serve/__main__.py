"""`python -m utils.serve` is `limbeck serve`."""

import sys

from utils.serve.command import main

if __name__ == "__main__":
    sys.exit(main())
