"""What augment.py is made of: a cell of the experiment, the enlarged sets, and the tables."""
