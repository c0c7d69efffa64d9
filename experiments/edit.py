"""Edits photos with a trained model, in a web page or on the command line.

  python -m experiments.edit
  python -m experiments.edit --workdir=runs/celeba_quick
  python -m experiments.edit --input=photo.jpg --set=Smiling:+2 --output=out.png

The installed package has the same command as `jacsup-edit`.
"""

import sys

from jacsup_jax.editor import main

if __name__ == '__main__':
  sys.exit(main.main())
