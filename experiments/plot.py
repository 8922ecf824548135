"""``jaxgen plot``."""

import sys

from jaxgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["plot", *sys.argv[1:]]))
