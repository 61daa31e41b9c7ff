"""The results of videos as Arrow tables: a row per clip (features) or per video (classes), or one row with an error.

Columns: video (its name), start and end (seconds), the results, error (null, or one line), model (its hash), version.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import pyarrow as pa

from vivit.hashes import hash_of_json, hash_of_params
from vivit.inference.classification import Classification, classify_videos
from vivit.inference.features import feature_shapes, features_of_videos
from vivit.model_data import ModelData
from vivit.versions import version
from vivit.video.spec import forget_files

Command = Literal["features", "classify"]
HEADS = pa.list_(pa.list_(pa.struct({"label": pa.string(), "probability": pa.float64()})))


class Job(NamedTuple):
    """What is computed, of which model. options: of features_of_videos or classify_videos. schema: of the results."""

    command: Command
    model: ModelData
    options: dict[str, Any]
    schema: pa.Schema
    model_hash: str


def new_job(command: Command, model: ModelData, options: dict[str, Any]) -> Job:
    """Returns the job; an option that is not given has its default.

    Raises ValueError if an option is invalid, or the model cannot do this.
    """
    compute, _, columns = COMPUTE[command]
    parameters = inspect.signature(compute).parameters.values()
    options = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY} | options
    for _ in compute(model, [], **options):  # checks the options
        pass
    span = [("start", pa.float64()), ("end", pa.float64())]
    source = [("error", pa.string()), ("model", pa.string()), ("version", pa.string())]
    schema = pa.schema([("video", pa.string()), *span, *columns(model, options), *source])
    return Job(command, model, options, schema, hash_of_model(model))


def portable(job: Job) -> Job:
    """Returns the job with weights in NumPy, which the workers of a machine share in Ray's memory."""
    return job._replace(model=replace(job.model, params=jax.tree.map(np.asarray, job.model.params)))


def loaded(job: Job) -> Job:
    """Returns the job with weights on the device."""
    return job._replace(model=replace(job.model, params=jax.device_put(job.model.params)))


def hash_of_model(model: ModelData) -> str:
    """Returns the SHA-256 of all that features depend on: the hash of the weights, the config and the preprocessing."""
    described = {
        "weights": hash_of_params(model.params),
        "config": asdict(model.config),
        "preprocessing": asdict(model.preprocessing),
    }
    return hash_of_json(described)


def tables(job: Job, names: Sequence[str]) -> Iterator[pa.Table]:
    """Yields the result of every video, in order."""
    compute, columns_of, _ = COMPUTE[job.command]
    for name, result in zip(names, compute(job.model, names, **job.options), strict=True):
        yield (
            error_table(job, name, result) if isinstance(result, ValueError) else _table(job, name, columns_of(result))
        )
    forget_files()  # no video is read twice


def error_table(job: Job, name: str, error: ValueError) -> pa.Table:
    """Returns the row of a video that has no result."""
    return _table(job, name, {"error": [str(error)]})


def _table(job: Job, name: str, columns: dict[str, Any]) -> pa.Table:
    count = len(next(iter(columns.values())))
    source = {"video": name, "model": job.model_hash, "version": version("vivit")}
    given = {**columns, **{column: [value] * count for column, value in source.items()}}
    arrays = [_array(given.get(field.name), field.type, count) for field in job.schema]
    return pa.Table.from_arrays(arrays, schema=job.schema)


def _feature_columns(model: ModelData, options: dict[str, Any]) -> list[tuple[str, pa.DataType]]:
    return [(name, _list_type(shape)) for name, shape in feature_shapes(model, options["stages"]).items()]


def _features(found: dict[str, np.ndarray]) -> dict[str, Any]:
    stages = {name: array for name, array in found.items() if name not in ("index", "seconds")}
    return {"start": found["seconds"].min(1), "end": found["seconds"].max(1), **stages}


def _classes(found: Classification) -> dict[str, Any]:
    stamps = np.concatenate([view.stamps for view in found.views])
    heads = [[score._asdict() for score in head] for head in found.heads]
    return {"start": [stamps.min()], "end": [stamps.max()], "heads": [heads]}


def _class_columns(model: ModelData, options: dict[str, Any]) -> list[tuple[str, pa.DataType]]:
    return [("heads", HEADS)]


# for every command: results of videos by (model, names, **options), a result's columns, and their names and types
COMPUTE: dict[str, tuple[Callable[..., Iterator[Any]], Callable[[Any], dict[str, Any]], Callable[..., Any]]] = {
    "features": (features_of_videos, _features, _feature_columns),
    "classify": (partial(classify_videos, balanced=False), _classes, _class_columns),
}


def _list_type(shape: tuple[int, ...]) -> pa.DataType:
    """Returns the type of an array of this shape: lists in each other.

    Not lists of fixed size: few readers of Parquet take those with nulls.
    """
    kind = pa.float32()
    for _ in shape:
        kind = pa.list_(kind)
    return kind


def _array(values: Any, kind: pa.DataType, count: int) -> pa.Array:
    if values is None:
        return pa.nulls(count, kind)
    if not isinstance(values, np.ndarray):
        return pa.array(values, kind)
    array = pa.array(np.ascontiguousarray(values).ravel())
    for size in reversed(values.shape[1:]):
        offsets = pa.array(np.arange(0, len(array) + 1, size), pa.int32())
        array = pa.ListArray.from_arrays(offsets, array)
    return array
