"""Image sets by name: `load` gives those of classes, `load_faces` faces.

`batches` says which examples make a batch, and `feeding` reads batches of
faces ahead of use. The other modules are the readers behind the two functions.
"""

from jacsup_jax.data.array_file import NAME as ARRAYS
from jacsup_jax.data.faces import DEFAULT_FACES
from jacsup_jax.data.faces import FACE_SPLITS
from jacsup_jax.data.faces import FaceDataset
from jacsup_jax.data.faces import KNOWN_FACES
from jacsup_jax.data.faces import load_faces
from jacsup_jax.data.preparing import ARRAYS
from jacsup_jax.data.sources import DEFAULT_DATASET
from jacsup_jax.data.sources import Dataset
from jacsup_jax.data.sources import IMAGE_SHAPE
from jacsup_jax.data.sources import KNOWN_DATASETS
from jacsup_jax.data.sources import SPLITS
from jacsup_jax.data.sources import VALIDATION_SIZE
from jacsup_jax.data.sources import load
