"""Answer a question with error bars: train a VAE or a GAN for several values of an option and several seeds at once.

    jaxgen sweep vae --over latent_dim=2,4,8,16,32 --seeds 5
    jaxgen sweep gan --penalty r1 --over penalty_weight=0.1,1,10 --over generator_learning_rate=1e-4,2e-4
    jaxgen sweep gan --random 20 --over generator_learning_rate+discriminator_learning_rate=1e-5:1e-2:log
    jaxgen sweep vae --workdir runs/sweep-001 --resume --steps 20000

One program trains all members. Left behind are results.json, sweep.png, and a run directory for each member under
members/, which `jaxgen sample`, `plot` and `train --resume` open.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgen import recipes
from jaxgen.cli.exit_status import exit_status
from jaxgen.cli.sweeping.plan import parse_plan


def _sweep(plan: Any) -> None:
    # Slow to import: the command line has been read by now.
    from jaxgen.cli.next_commands import next_commands
    from jaxgen.cli.sweeping.training import sweep

    print("\n".join(["next:", *next_commands(sweep(plan))]))


def main(arguments: Sequence[str] | None = None, known: Mapping[str, str] = recipes.FILES) -> int:
    """The command, with the modules of named configurations by their names: returns its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    return exit_status(lambda: parse_plan(given, known), _sweep, words=["jaxgen", "sweep", *given])
