"""``python -m napari_svpseg.cli`` is the ``svpseg`` command."""

import sys

from .main import main

sys.exit(main())
