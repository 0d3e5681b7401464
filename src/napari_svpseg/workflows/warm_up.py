"""Load a model before it is needed, so that the first run does not wait for it.

Importing this module loads neither torch nor Qt.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.geometry import PROMPT_SIZE, Box
from ..core.progress import Progress
from ..core.prompt import Prompt
from ..core.settings import PostprocessSettings, SegmentSettings
from .segment_image import describe_device, prepare, segment


def warm_up(
    model: str, settings: SegmentSettings, *, on_progress: Progress | None = None
) -> dict[str, Any]:
    """Load a model and run it once on noise, on the device of the settings.

    Parameters
    ----------
    model : str
        Name or folder.
    settings : SegmentSettings
        Device and tile of the runs to come.
    on_progress : callable, optional
        Called with steps done, number of steps, and a text; may raise to stop.

    Returns
    -------
    dict
        Where the model runs, as `describe_device` returns it.
    """
    loaded, _ = prepare(model, settings.device)
    noise = np.random.default_rng(0).random((settings.tile, settings.tile), np.float32)
    prompts = None
    if loaded.network.needs_prompt:
        disc = np.hypot(*(np.indices((PROMPT_SIZE, PROMPT_SIZE)) - 32)) < 12
        box = Box(0, 0, PROMPT_SIZE)
        prompts = Prompt.from_image(noise[box.slices], disc.astype(np.int32), box)
    segment(
        noise,
        prompts,
        model=model,
        settings=settings,
        postprocess=PostprocessSettings(split=False),
        on_progress=on_progress,
    )
    return describe_device(settings.device)
