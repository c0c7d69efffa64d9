"""Stages, steps and epochs: how models are trained."""
