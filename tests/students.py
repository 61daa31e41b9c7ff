"""An implementation of the contract in plain NumPy, and wrong ones: each method is a place where a student may err."""

import math
from typing import Any

import numpy as np

from vivit.reference import models as reference
from vivit.reference.params import convert


class Student:
    """All functions, in float32, for qkv [b t s 3c] by one attention over the second-to-last axis of [... n d]."""

    DTYPES = ("float32",)

    def scale(self, d: int) -> np.float32:
        return np.float32(1 / math.sqrt(d))

    def exponentials(self, scores: np.ndarray) -> np.ndarray:
        return np.exp(scores - scores.max(axis=-1, keepdims=True))

    def product(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return left @ right

    def seen(self, mask: np.ndarray) -> np.ndarray:
        return mask

    def read(self, qkv: np.ndarray, mask: np.ndarray) -> np.ndarray:
        of_query = np.arange(qkv.shape[-1]) < qkv.shape[-1] // 3
        return np.where(mask[..., np.newaxis] | (of_query & np.isfinite(qkv)), qkv, np.float32(0.0))

    def split(self, qkv: np.ndarray, heads: int) -> list[np.ndarray]:
        """[... 3c] to query, key and value, [... h d] each."""
        parts = qkv.reshape(*qkv.shape[:-1], 3, heads, -1)
        return [parts[..., i, :, :] for i in range(3)]

    def weights(self, query: np.ndarray, key: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        scores = self.product(query, key.swapaxes(-1, -2)) * self.scale(query.shape[-1])
        if mask is not None:
            scores = np.where(mask, scores, np.float32(-1e30))
        exponentials = self.exponentials(scores)
        weights = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return weights if mask is None else np.where(mask, weights, np.float32(0.0))

    def _rows(self, axis: int, qkv: np.ndarray, heads: int, mask: np.ndarray | None) -> tuple[list[np.ndarray], Any]:
        """Query, key and value with heads first and tokens of `axis` before the channels; the mask of keys."""
        if mask is not None:
            mask = self.seen(mask)
            qkv = self.read(qkv, mask)
        parts = [np.moveaxis(part, (-2, axis), (1, -2)) for part in self.split(qkv, heads)]
        return parts, None if mask is None else np.moveaxis(mask, axis, -1)[:, np.newaxis, ..., np.newaxis, :]

    def attend(self, axis: int, qkv: np.ndarray, heads: int, mask: np.ndarray | None) -> np.ndarray:
        (query, key, value), mask = self._rows(axis, qkv, heads, mask)
        out = np.moveaxis(self.product(self.weights(query, key, mask), value), (1, -2), (-2, axis))
        return out.reshape(*out.shape[:-2], -1)

    def pull(self, axis: int, qkv: np.ndarray, cotangent: np.ndarray, heads: int, mask: Any) -> np.ndarray:
        (query, key, value), seen = self._rows(axis, qkv, heads, mask)
        out = np.moveaxis(cotangent.reshape(*cotangent.shape[:-1], heads, -1), (-2, axis), (1, -2))
        weights, scale = self.weights(query, key, seen), self.scale(query.shape[-1])
        of_weights = self.product(out, value.swapaxes(-1, -2))
        of_scores = weights * (of_weights - (of_weights * weights).sum(axis=-1, keepdims=True))
        found = [
            self.product(of_scores, key) * scale,
            self.product(of_scores.swapaxes(-1, -2), query) * scale,
            self.product(weights.swapaxes(-1, -2), out),
        ]
        found = [np.moveaxis(part, (1, -2), (-2, axis)) for part in found]
        return np.concatenate([part.reshape(*part.shape[:-2], -1) for part in found], axis=-1)

    def joint(self, qkv, heads, *, mask=None):
        return self.attend(1, qkv, heads, mask)

    def spatial(self, qkv, heads, *, mask=None):
        return self.attend(2, qkv, heads, mask)

    def temporal(self, qkv, heads, *, mask=None):
        return self.attend(1, qkv, heads, mask)

    def halves(self, x, parts):
        return [half.reshape(*x.shape[:-1], -1) for half in np.split(x.reshape(*x.shape[:-1], parts, -1), 2, axis=-1)]

    def factorised_dot_product(self, qkv, heads, *, mask=None):
        over_time, over_space = self.halves(qkv, 3)
        parts = [self.temporal(over_time, heads // 2, mask=mask), self.spatial(over_space, heads // 2, mask=mask)]
        return np.concatenate(parts, axis=-1)

    def joint_vjp(self, qkv, cotangent, heads, *, mask=None):
        return self.pull(1, qkv, cotangent, heads, mask)

    def spatial_vjp(self, qkv, cotangent, heads, *, mask=None):
        return self.pull(2, qkv, cotangent, heads, mask)

    def temporal_vjp(self, qkv, cotangent, heads, *, mask=None):
        return self.pull(1, qkv, cotangent, heads, mask)

    def tubelet_embed(self, video, params):
        time, height, width, colors, c = params.kernel.shape
        b, frames, tall, wide, _ = video.shape
        cut = video.reshape(b, frames // time, time, tall // height, height, wide // width, width, colors)
        tubelets = self.order(cut).reshape(b, frames // time, -1, time * height * width * colors)
        return tubelets @ params.kernel.reshape(-1, c) + params.bias

    def order(self, cut):
        return cut.transpose(0, 1, 3, 5, 2, 4, 6, 7)

    def forward(self, params, video, config):
        params = convert(params, lambda _, leaf: np.float64(leaf))
        return reference.forward(params, video, self.config(config)).astype(video.dtype)

    def config(self, config):
        return config
