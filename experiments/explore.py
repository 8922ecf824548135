"""``jaxgen explore``."""

import sys

from jaxgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["explore", *sys.argv[1:]]))
