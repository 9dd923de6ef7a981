"""``python -m napari_seg3d`` is the command ``napari-seg3d``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
