"""Measure trained runs: all that applies to each, on one protocol, beside what real images reach.

    jaxgen evaluate runs/vae-001
    jaxgen evaluate runs/vae-001 runs/gan-001 --out evaluations/both
    jaxgen evaluate runs/gan-001 --measures frechet precision_recall --num 10000

It leaves records.json (every number with its protocol), table.txt, and the pictures measures.png, samples.png and, for
VAEs, latents.png.
"""

from collections.abc import Sequence

import tyro

from jaxgen.cli.evaluating import Options, evaluate
from jaxgen.cli.exit_status import exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns its exit status."""
    return exit_status(
        lambda: tyro.cli(Options, args=arguments, prog="jaxgen evaluate"), lambda options: print(evaluate(options))
    )
