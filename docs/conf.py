"""Settings of the site, which ``make docs`` builds without fetching anything."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import generated_pages

from napari_svpseg import __version__

project = "napari-svpseg"
author = "napari-svpseg developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["generated/readme.md"]
templates_path: list[str] = []

# ---------------------------------------------------------------- text
myst_heading_anchors = 3
myst_links_external_new_tab = False
smartquotes = False  # "--option" keeps its dashes
suppress_warnings = ["myst.header"]  # model cards begin below the title of their page

# ---------------------------------------------------------------- docstrings
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
default_role = "py:obj"
maximum_signature_line_length = 78
napoleon_google_docstring = False
napoleon_preprocess_types = False
napoleon_use_param = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True

# ---------------------------------------------------------------- looks
html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
html_theme_options = {
    "github_url": "https://github.com/napari-svpseg/napari-svpseg",
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_prompt_text = "$ "


def setup(app: object) -> None:
    """Write the generated pages before the others are read."""
    generated_pages.write(Path(__file__).parent / "generated")
