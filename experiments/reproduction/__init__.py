"""Published numbers: what reproducing one means, how papers measure, and the table of what was reached."""
