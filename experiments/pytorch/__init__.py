"""Weights from PyTorch's files: how they are read, and what is made of them."""
