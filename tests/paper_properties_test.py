"""Tests of experiments.paper_properties."""

import pathlib

from experiments import paper_properties

ROOT = pathlib.Path(__file__).parents[1]


def test_ours_are_what_the_models_are():
  supervised, fader = paper_properties.describe_ours()
  # A student needs its teacher first, and nobody to fool.
  assert not supervised.end_to_end and not supervised.adversarial
  assert fader.end_to_end and fader.adversarial
  for method in (supervised, fader):
    # As the paper's experiments, of which it counts 32 attributes that work.
    assert method.resolution == (256, 256) and method.attributes == 40
    assert method.continuous and not method.aligned_pairs


def test_readme_has_the_table_that_the_code_makes():
  assert paper_properties.format_markdown() in (ROOT / 'README.md').read_text()
