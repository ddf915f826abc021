"""`python -m ct_adam COMMAND`, where the script `ct-adam` is not on the path."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
