"""``jaxgen evaluate``."""

import sys

from jaxgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
