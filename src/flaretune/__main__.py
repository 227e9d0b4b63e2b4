"""`python -m flaretune`; see `flaretune.cli.main`."""

import sys

from flaretune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
