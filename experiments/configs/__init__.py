"""Named configurations: one file per result, whose docstring says what was reached, in what time, by which command."""
