"""Judging trained models: the features of images that distributions are compared on."""
