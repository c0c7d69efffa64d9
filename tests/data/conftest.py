"""Data folders that the tests of this folder share."""

import pytest
import tensorflow_datasets as tfds
import tiny_sets


@pytest.fixture
def originals(tmp_path, monkeypatch):
  """A data folder with four small files, those of Fashion-MNIST."""
  folder = tmp_path / 'originals'
  infos = {
    f'http://localhost/{name}': tfds.download.checksums.UrlInfo(
      size=1, checksum=checksum, filename=name
    )
    for name, checksum in tiny_sets.write_originals(folder).items()
  }
  monkeypatch.setattr(tfds.builder_cls('fashion_mnist'), 'url_infos', infos)
  return folder


@pytest.fixture
def prepared(tmp_path, originals):
  """A data folder with the same examples, prepared by TFDS."""
  root = tmp_path / 'prepared'
  examples = tiny_sets.read_originals(originals)
  tiny_sets.write_prepared(root, 'fashion_mnist', examples)
  return root
