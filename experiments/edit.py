"""Edits photos with a trained model, in a web page or on the command line.

  python -m experiments.edit
  python -m experiments.edit --runs_dir=runs
  python -m experiments.edit --input=a.jpg --set=Eyeglasses:+2 --output=b.png

The installed package has the same command as `jacsup-edit`.
"""

import sys

from jacsup_jax.editor import main

if __name__ == '__main__':
  sys.exit(main.main())
