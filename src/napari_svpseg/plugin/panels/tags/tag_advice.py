"""Advice on tags: why they cannot be trained with, and what would make them better."""

from __future__ import annotations

from .tag_set import TagSet

NO_IMAGES = "Open images, or choose a folder of images, to begin."
NO_CLASSES = "Add a class for each kind of thing that images may show."
NO_TAGS = "Tag some images: select a row, press 1 to 9, then Enter."
ONE_TAG = "One image is not enough to learn from: tag more."
UNUSED_CLASS = "No image has the class '{}': tag one, or remove the class."
ALL_ALIKE = (
    "Each tagged image has all classes, so there is nothing to compare: tag images "
    "without some of them (0: none of them)."
)
CAN_TRAIN = " You can train already."
COMMON_CLASS = (
    "Each tagged image has '{}', so it is hard to learn where it is: tag some images "
    "without it."
)
NEVER_ALONE = (
    "No image has {} alone: the image bank is better with some images that do."
)
UNTAGGED = "{} without a tag will be left out."


def tag_problem(tags: TagSet) -> str:
    """Return why one cannot train with these tags, and what to do; or ""."""
    tagged = [frozenset(classes) for _, classes in tags.tagged()]
    if not tags.images:
        return NO_IMAGES
    if not tags.classes:
        return NO_CLASSES
    if not tagged:
        return NO_TAGS
    if len(tagged) == 1:
        return ONE_TAG
    for name in tags.classes:
        if not tags.n_of(name):
            return UNUSED_CLASS.format(name)
    if all(set(tags.classes) <= classes for classes in tagged):
        return ALL_ALIKE
    return ""


def tag_advice(tags: TagSet) -> str:
    """Return advice that would improve the training, or ""."""
    tagged = [classes for _, classes in tags.tagged()]
    common = [c for c in tags.classes if all(c in of for of in tagged)]
    if common:
        return COMMON_CLASS.format(common[0]) + CAN_TRAIN
    alone = {classes[0] for classes in tagged if len(classes) == 1}
    missing = [f"'{c}'" for c in tags.classes if c not in alone]
    if missing:
        return NEVER_ALONE.format(" or ".join(missing)) + CAN_TRAIN
    left = len(tags.images) - len(tagged)
    if left:
        return UNTAGGED.format(left) + CAN_TRAIN
    return ""
