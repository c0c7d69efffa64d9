"""Experiments: programs that train, measure and draw with jacsup_jax."""
