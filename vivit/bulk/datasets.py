"""Features and classes as Ray Datasets: from a Dataset of paths to a Dataset of results, computed when it is read."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vivit.bulk.cluster import pool
from vivit.bulk.results import Command, Job, loaded, new_job, portable, tables
from vivit.bulk.sources import COLUMN
from vivit.model_data import ModelData

if TYPE_CHECKING:
    from ray.data import Dataset

BLOCK = 64  # videos that a worker takes at a time


def features(
    dataset: "Dataset", model: ModelData, *, column: str = COLUMN, workers: int | None = None, **options: Any
) -> "Dataset":
    """Returns the Dataset of the features of videos, a row per clip; a video without a result has a row with its error.

    dataset: has the paths of the videos in a column, such as ray.data.read_parquet gives; column: its name. The columns
    of the result are described in results.py. workers: processes, each with its copy of the model; None: one a GPU, or
    one for every two cores. options: stages, stride, clip_stride, batch, dtype and limits as in `vivit.features`.
    The result is computed by workers when it is read. It needs Ray to be running (ray.init). Raises ValueError if an
    option is invalid.
    """
    return _mapped("features", dataset, model, column, workers, options)


def classify(
    dataset: "Dataset", model: ModelData, *, column: str = COLUMN, workers: int | None = None, **options: Any
) -> "Dataset":
    """Returns the Dataset of the classes of videos, a row per video.

    options: top, views, stride, batch, dtype and limits as in `vivit.classify`. Otherwise as `features`.
    """
    return _mapped("classify", dataset, model, column, workers, options)


def _mapped(
    command: Command, dataset: "Dataset", model: ModelData, column: str, workers: int | None, options: dict[str, Any]
) -> "Dataset":
    import ray

    stored = ray.put(portable(new_job(command, model, options)))
    return dataset.map_batches(
        _Tables, batch_size=BLOCK, batch_format="pyarrow", fn_constructor_args=([stored], column), **pool(workers)
    )


class _Tables:
    """A worker, which loads the model once, then computes one block of paths after the other."""

    def __init__(self, stored: list[Any], column: str) -> None:
        import ray

        self._job: Job = loaded(ray.get(stored[0]))
        self._column = column

    def __call__(self, paths: pa.Table) -> Iterator[pa.Table]:
        return tables(self._job, paths[self._column].to_pylist())
