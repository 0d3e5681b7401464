"""The engine process: ``python -m napari_svpseg.engine``."""

from .jobs.engine_loop import main

if __name__ == "__main__":
    main()
