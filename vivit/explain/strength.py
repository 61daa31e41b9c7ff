"""How strong a map is shown: one color, clearer the less there is, over the film in dim grey.

Grey has the same red as blue, so how far a pixel's are apart is the map's alone; and no grey is as light as the color,
so more of it is lighter too. Both hold whatever the film shows. Full color is the most of the whole clip.

Two maps are not drawn at all: one that is rounding, and one that is nearly even, which full color all over would
make look like a finding.
"""

from typing import NamedTuple

import numpy as np

COLOR = (255, 176, 0)  # without blue
LIGHT = 128  # the grey of what is white in the film
EVEN = 0.8  # of the most: what the least of an even map has at least
LOST = float(np.finfo(np.float32).eps)  # of a sum of 1, such as attention: less is lost when it is summed up


class Strength(NamedTuple):
    """One map, to be shown. parts: float64, 0 to 1, of its most; 0 where nothing is drawn. least, most: of the map."""

    parts: np.ndarray
    least: float
    most: float
    floor: float

    @property
    def nothing(self) -> bool:
        """Whether all of it may be rounding."""
        return self.most <= self.floor

    @property
    def even(self) -> bool:
        return not self.nothing and self.least >= EVEN * self.most


def strength(values: np.ndarray, floor: float) -> Strength:
    """values: float[…], of a whole clip. floor: what is no more than this may be rounding."""
    values = np.asarray(values, np.float64)
    found = Strength(np.zeros(values.shape), float(values.min()), float(values.max()), floor)
    if found.nothing or found.even:
        return found
    return found._replace(parts=np.where(values > floor, values, 0) / found.most)


def over_film(frame: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """A frame, uint8[height width 3], in dim grey and over it parts, float[height width]: float[height width 3] ≤ 1."""
    grey = frame @ np.array([0.3, 0.59, 0.11]) / 255 * (LIGHT / 255)  # the weights of the page's blending
    parts = parts[..., np.newaxis]
    return parts * np.array(COLOR) / 255 + (1 - parts) * grey[..., np.newaxis]
