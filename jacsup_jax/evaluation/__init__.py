"""Evaluation: a model and data -> rows of results.json."""
