"""The training clips that a recipe asks for: from which frames, cut and changed how."""

from dataclasses import dataclass

import jax
import numpy as np

from vivit.data.augmentation import Augmentation, augment
from vivit.memory import check_model
from vivit.reference.config import Config
from vivit.training.recipe import Recipe
from vivit.video.cache import Cache
from vivit.video.sampling import Sampling
from vivit.video.spec import ClipSpec


def augmentation(recipe: Recipe) -> Augmentation:
    """Returns the augmentation of a training clip. Mixup and label smoothing act on whole batches, in the step."""
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
    """Raises ValueError if the training needs more than `limit` bytes per device.

    Counted are weights, gradients, momentum and the clips of a microbatch.
    """
    devices = jax.device_count()
    clips = max(1, recipe.batch_size // recipe.accumulation // devices)
    check_model(config, limit, clips=clips, copies=max(1, 3 // devices))


def training_spec(recipe: Recipe, config: Config, cache: Cache | None = None) -> ClipSpec:
    """The clips of a recipe. Raises ValueError if the recipe's crop is not the config's picture."""
    if (config.height, config.width) != (recipe.crop, recipe.crop):
        raise ValueError(f"crop is {recipe.crop}: the config has pictures of {config.height}x{config.width}")
    return ClipSpec(
        sampling=Sampling(frames=config.frames, stride=recipe.stride, short=recipe.short),
        height=config.height,
        width=config.width,
        resize=recipe.resize,
        cache=cache,
    )


def train_transform(recipe: Recipe, config: Config) -> "TrainTransform":
    """What happens to the clips of a recipe."""
    return TrainTransform(augmentation(recipe), recipe.shuffle_frames, config.height, config.width)


@dataclass(frozen=True)
class TrainTransform:
    """What training does to one clip: uint8[frames tall wide 3] to uint8[frames height width 3]."""

    options: Augmentation
    shuffle_frames: bool
    height: int
    width: int

    def __call__(self, clip: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if self.shuffle_frames:
            clip = clip[generator.permutation(len(clip))]
        return augment(clip, generator, self.options, height=self.height, width=self.width)
