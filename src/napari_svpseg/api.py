"""The functions users call, in notebooks and scripts.

Each has its own module in `workflows` or `io`; this module only gathers them. Importing
it loads neither torch nor Qt.
"""

from .io.images import read_image
from .io.mask_files import read_mask
from .io.model_store import list_models
from .io.prompt_files import load_prompts, prompt_from_files, save_prompts
from .workflows.correct_image import correct
from .workflows.finetuning import (
    discard_finetune,
    finetune,
    stop_finetune,
    unfinished_finetunes,
)
from .workflows.loaded_model import load_model
from .workflows.segment_file import labels_path, segment_file
from .workflows.segment_image import postprocess, segment
from .workflows.segment_large import segment_zarr
from .workflows.tag_training import (
    discard_tag_training,
    find_patch_bank,
    stop_tag_training,
    train_from_tags,
)

__all__ = [
    "correct",
    "discard_finetune",
    "discard_tag_training",
    "find_patch_bank",
    "finetune",
    "labels_path",
    "list_models",
    "load_model",
    "load_prompts",
    "postprocess",
    "prompt_from_files",
    "read_image",
    "read_mask",
    "save_prompts",
    "segment",
    "segment_file",
    "segment_zarr",
    "stop_finetune",
    "stop_tag_training",
    "train_from_tags",
    "unfinished_finetunes",
]
