"""``jaxgen sample``."""

import sys

from jaxgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
