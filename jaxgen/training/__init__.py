"""Training: the loop, checkpoints, the monitor and run directories. Needs orbax; the rest is imported where used."""
