"""Train a VAE or a GAN on images.

    jaxgen train vae
    jaxgen train gan --dataset mnist --workdir runs/mnist
    jaxgen train --workdir runs/vae-001 --resume --steps 20000

A run directory is left behind: config.json, metrics.jsonl, tensorboard/, checkpoints/ and samples/.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgen import recipes
from jaxgen.cli.exit_status import exit_status
from jaxgen.cli.parsing import parse


def _train(options: Any) -> None:
    # Slow to import: the command line has been read by now.
    from jaxgen.cli.next_commands import next_commands
    from jaxgen.cli.runs import train
    from jaxgen.training.processes import is_primary

    directory = train(options)
    if is_primary():
        print("\n".join(["next:", *next_commands(directory)]))


def main(arguments: Sequence[str] | None = None, known: Mapping[str, str] = recipes.FILES) -> int:
    """The command, with the modules of named configurations by their names: returns its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    return exit_status(lambda: parse(given, "jaxgen train", known), _train, words=["jaxgen", "train", *given])
