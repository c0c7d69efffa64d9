"""Image sets by name: `load` gives a split as arrays.

`batches` says which examples make a batch; `idx` and `mnist_embedded` are the
readers behind `load`.
"""

from jacsup_jax.datasets.sources import Dataset
from jacsup_jax.datasets.sources import DEFAULT_DATASET
from jacsup_jax.datasets.sources import IMAGE_SHAPE
from jacsup_jax.datasets.sources import KNOWN_DATASETS
from jacsup_jax.datasets.sources import load
from jacsup_jax.datasets.sources import SPLITS
from jacsup_jax.datasets.sources import VALIDATION_SIZE
