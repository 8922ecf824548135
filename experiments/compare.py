"""``jaxgen compare``."""

import sys

from jaxgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
