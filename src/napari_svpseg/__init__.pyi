from .api import (
    correct,
    finetune,
    list_models,
    load_model,
    load_prompts,
    postprocess,
    read_image,
    read_mask,
    save_prompts,
    segment,
    segment_file,
    segment_zarr,
    train_from_tags,
)
from .core.annotation.corrections import CorrectionError
from .core.annotation.image_tags import (
    TagTrainingError,
    TagTrainingProgress,
    TagTrainingResult,
    TagTrainingSettings,
)
from .core.geometry import Box
from .core.image import ImageError
from .core.jobs.finetune_job import (
    FineTuneError,
    FineTuneProgress,
    FineTuneResult,
    FineTuneSettings,
    ValidationScore,
)
from .core.jobs.folder_job import FileOutcome
from .core.labels.uncertainty import (
    UncertainPlace,
    image_uncertainty,
    uncertain_places,
)
from .core.model_card import ModelCard
from .core.progress import Cancelled
from .core.prompt import Prompt, PromptError, PromptSet
from .core.result import Maps, Recipe, Result
from .core.settings import PostprocessSettings, SegmentSettings
from .io.atomic import WriteError
from .io.images import ImageFile
from .io.locks import InUseError
from .io.model_store import LoadedModel, ModelFormatError
from .io.ownership import ReplaceError
from .io.prompt_files import PromptFileError
from .io.tag_files import Tags, TagsError, read_tags
from .workflows.correct_image import Correction
from .workflows.loaded_model import Model
from .workflows.segment_large import LargeOutcome

__all__ = [
    "Box",
    "Cancelled",
    "Correction",
    "CorrectionError",
    "FileOutcome",
    "FineTuneError",
    "FineTuneProgress",
    "FineTuneResult",
    "FineTuneSettings",
    "ImageError",
    "ImageFile",
    "InUseError",
    "LargeOutcome",
    "LoadedModel",
    "Maps",
    "Model",
    "ModelCard",
    "ModelFormatError",
    "PostprocessSettings",
    "Prompt",
    "PromptError",
    "PromptFileError",
    "PromptSet",
    "Recipe",
    "ReplaceError",
    "Result",
    "SegmentSettings",
    "TagTrainingError",
    "TagTrainingProgress",
    "TagTrainingResult",
    "TagTrainingSettings",
    "Tags",
    "TagsError",
    "UncertainPlace",
    "ValidationScore",
    "WriteError",
    "correct",
    "finetune",
    "image_uncertainty",
    "list_models",
    "load_model",
    "load_prompts",
    "postprocess",
    "read_image",
    "read_mask",
    "read_tags",
    "save_prompts",
    "segment",
    "segment_file",
    "segment_zarr",
    "train_from_tags",
    "uncertain_places",
]

__version__: str
