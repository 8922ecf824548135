"""``jaxgen export``."""

import sys

from jaxgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
