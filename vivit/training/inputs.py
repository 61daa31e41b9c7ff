"""The clips that a recipe asks for: from which frames, cut and changed how, in training and in evaluation."""

from dataclasses import dataclass

import jax
import numpy as np

from vivit.data.augmentation import Augmentation, augment
from vivit.data.cache import Cache
from vivit.data.clips import Pixels
from vivit.data.sampling import Sampling
from vivit.memory import check_model
from vivit.reference.config import Config
from vivit.training.recipe import Recipe


def augmentation(recipe: Recipe) -> Augmentation:
    """What happens to the pixels of a training clip; mixup and label smoothing happen to whole batches, in the step."""
    return Augmentation(
        scale=recipe.scale_jitter,
        random_crop=recipe.random_crop,
        flip=recipe.flip,
        color=recipe.color,
        grey=recipe.grey,
        operations=recipe.randaugment_layers,
        magnitude=recipe.randaugment_magnitude,
        erase=recipe.erase,
    )


def check_training(config: Config, recipe: Recipe, limit: int) -> None:
    """Raises ValueError if weights, gradients and momentum, and the clips of one part of a batch, take more bytes."""
    devices = jax.device_count()
    clips = max(1, recipe.batch_size // recipe.accumulation // devices)
    check_model(config, limit, clips=clips, copies=max(1, 3 // devices))


def training_pixels(recipe: Recipe, config: Config, cache: Cache | None = None) -> Pixels:
    """Clips at random places, augmented. Raises ValueError if the recipe's crop is not the config's picture."""
    return _pixels(
        recipe, config, cache, Change(augmentation(recipe), recipe.shuffle_frames, config.height, config.width)
    )


def evaluation_pixels(recipe: Recipe, config: Config, cache: Cache | None = None) -> Pixels:
    """Clips evenly spread, nothing changed. Raises ValueError as training_pixels."""
    return _pixels(recipe, config, cache, None)


def _pixels(recipe: Recipe, config: Config, cache: Cache | None, transform) -> Pixels:
    if (config.height, config.width) != (recipe.crop, recipe.crop):
        raise ValueError(f"crop is {recipe.crop}: the config has pictures of {config.height}x{config.width}")
    return Pixels(
        sampling=Sampling(frames=config.frames, stride=recipe.stride, short=recipe.short),
        height=config.height,
        width=config.width,
        shorter_side=recipe.resize,
        transform=transform,
        cache=cache,
    )


@dataclass(frozen=True)
class Change:
    """What training does to one clip: uint8[frames tall wide 3] to uint8[frames height width 3]."""

    options: Augmentation
    shuffle_frames: bool
    height: int
    width: int

    def __call__(self, clip: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if self.shuffle_frames:
            clip = clip[generator.permutation(len(clip))]
        return augment(clip, generator, self.options, height=self.height, width=self.width)
