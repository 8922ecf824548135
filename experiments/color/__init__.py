"""The classifier of colour pictures, and what it learns from."""
