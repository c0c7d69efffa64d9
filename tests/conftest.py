"""Settings of all tests."""

import jax

from experiments import mnist

# A missing axis is an error, not a silent broadcast.
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Binaries define their flags when they run; names are shared between them.
mnist.define_flags()
