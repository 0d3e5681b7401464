"""What to do next after a fine-tuning, as sentences."""

from __future__ import annotations

from ...core.jobs.finetune_job import FineTuneResult
from ..messages import count

FEW_OBJECTS = 4
"""Validation cells below which a score says little."""
FAR_WORSE = 0.5
"""Share of the old score below which the labels themselves are in doubt."""

TRY_IT = "Next: press Use model, and Run on an image without labels."
COMPARE = "Compare on this image shows where the two differ."
MORE_LABELS = (
    "Next: paint more cells where the old model fails, on a second image if there is "
    "one, with background right next to them; add the image and start again."
)
MORE_TO_CHECK = (
    "Only {cells} could be checked, so chance decides: label a second place first."
)
CHECK_LABELS = (
    "The new model is far worse, so look at the labels first: each cell has a number "
    "of its own, and 'What the labels mean' fits them."
)
OTHER_BOXES = (
    "Or keep the old model, and draw other boxes or more of them in Segment from "
    "prompts."
)
NOT_CHECKED = (
    "Next: label a second place or image, so that a part of the labels can check the "
    "model; until then, compare by eye."
)


def next_steps(result: FineTuneResult) -> str:
    """Return what to do after a training: one to three sentences."""
    before, after = result.before, result.after
    if after.n_pixels == 0:
        return NOT_CHECKED
    if result.kept == "after":
        return f"{TRY_IT} {COMPARE}"
    steps = []
    if after.value < FAR_WORSE * before.value:
        steps.append(CHECK_LABELS)
    elif 0 < after.n_objects < FEW_OBJECTS:
        steps.append(MORE_TO_CHECK.format(cells=count(after.n_objects, "cell")))
    return " ".join((*steps, MORE_LABELS, OTHER_BOXES))
