"""``jaxgen sweep``, which knows the configurations of experiments/configs besides those of the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments import configs
from jaxgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]], configs.FILES))
