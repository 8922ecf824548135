"""Evaluation of trained models: extractors of features, and numbers that say how they were made."""
