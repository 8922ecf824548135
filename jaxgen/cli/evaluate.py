"""Measure trained runs: all that applies to each, on one protocol, beside what real images reach.

    jaxgen evaluate runs/vae-001
    jaxgen evaluate runs/vae-001 runs/gan-001 --out evaluations/both
    jaxgen evaluate runs/gan-001 --measures frechet precision_recall --num 10000

It leaves records.json (every number with its protocol), table.txt, and the pictures measures.png, samples.png and, for
VAEs, latents.png.
"""

from jaxgen.cli.evaluating import Options, evaluate
from jaxgen.cli.exit_status import command

main = command(Options, evaluate, "jaxgen evaluate")
