"""Settings of the documentation site; see Makefile."""

import pathlib
import sys

DOCS = pathlib.Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / '_extensions')]

import jacsup_jax  # noqa: E402

project = 'jacsup_jax'
author = 'The jacsup_jax authors'
copyright = author
release = version = jacsup_jax.__version__

extensions = [
  'sphinx.ext.autodoc',
  'sphinx.ext.autosummary',
  'sphinx.ext.napoleon',
  'sphinx.ext.viewcode',
  'sphinx_copybutton',
  'myst_nb',
  'sphinx-mathjax-offline',
  'live',
]
exclude_patterns = ['_build', 'requirements.txt']

add_module_names = False
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_use_ivar = True
# Docstrings have code in single backquotes.
default_role = 'code'
# Flags have two hyphens.
smartquotes = False

myst_enable_extensions = ['amsmath', 'colon_fence', 'deflist', 'dollarmath']
myst_heading_anchors = 4
# Notebooks are executed by the Makefile; pages show the outputs of full runs.
nb_execution_mode = 'off'

html_theme = 'sphinx_book_theme'
html_title = 'jacsup_jax'
html_static_path = ['_static']
html_search_scorer = '_static/scorer.js'
html_css_files = ['site.css']
html_theme_options = {
  'use_download_button': False,
  'show_navbar_depth': 1,
  'navbar_persistent': [],
}
copybutton_prompt_text = '$ '
