"""The scripts: what is published, got again, and what was found out with it."""

from jaxgen.cli.standard_streams import open_closed_descriptors

open_closed_descriptors()  # before any script opens a file
