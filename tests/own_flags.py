"""Flags of one binary in the place of another's, for tests of both."""

import contextlib

from absl import flags


@contextlib.contextmanager
def defined(define):
  """Defines a binary's flags in the place of another's, for a time.

  Args:
    define: defines them.
  """
  state = flags.FLAGS.__dict__
  saved = {name: _copy(value) for name, value in state.items()}
  for module, found in list(flags.FLAGS.flags_by_module_dict().items()):
    if module.startswith('experiments.'):
      for flag in list(found):
        delattr(flags.FLAGS, flag.name)
  try:
    define()
    yield
  finally:
    state.clear()
    state.update(saved)


def _copy(value):
  if not isinstance(value, dict):
    return value
  return {k: list(v) if isinstance(v, list) else v for k, v in value.items()}
