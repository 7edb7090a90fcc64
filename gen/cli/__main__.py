"""`python -m tritloom.gen.cli`: the command `tritloom`."""

import sys

from tritloom.gen.cli.main import main

if __name__ == "__main__":
    sys.argv[0] = "tritloom"
    sys.exit(main())
