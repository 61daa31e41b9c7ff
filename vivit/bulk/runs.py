"""Computes the features or classes of a whole source into a folder of Parquet shards, on Ray Data.

The dataset that Ray sees is that of the shards' numbers. A worker takes one number at a time, decodes the videos of the
shard beside computing, and writes its file; so pixels never leave a worker, and the result does not depend on how many
there are.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa

from vivit.bulk.attempts import attempted, forget_attempts
from vivit.bulk.cluster import check_reachable, connected, pool, quiet
from vivit.bulk.results import Command, Job, error_table, loaded, new_job, portable, tables
from vivit.bulk.shards import Counts, open_run, read_counts, shard_path, write_shard
from vivit.bulk.sources import COLUMN, hash_of_names, read_source
from vivit.files.paths import as_path, is_file
from vivit.model_data import ModelData, with_stride
from vivit.reference.params import leaves
from vivit.reference.values import check_count
from vivit.versions import version
from vivit.video.container import Limits
from vivit.video.prefetch import check_threads

SHARD_SIZE = 64  # videos
RECORDED = ("stages", "clip_stride", "top", "views", "batch", "dtype")  # options that results depend on


class Written(NamedTuple):
    """The numbers of videos and shards of a run, of videos without a result, and the error of the first of them."""

    videos: int
    shards: int
    failed: int
    error: str | None


def write(
    source: str | Path,
    model: ModelData,
    folder: str | Path,
    *,
    command: Command = "features",
    column: str = COLUMN,
    shard_size: int = SHARD_SIZE,
    workers: int | None = None,
    address: str | None = None,
    stride: int | None = None,
    threads: int = 1,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Written:
    """Writes the results of all videos of a source into a folder, and returns how many there are.

    source, column: as in sources.read_source. The folder has a Parquet file for every `shard_size` videos, and
    bulk.json; results.py describes the columns. If the folder is of an unfinished run with the same source, model and
    options, only its missing files are computed. A video that cannot be used has a row with its error.
    workers: processes, each with its copy of the model; None: one a GPU, or one for every two cores. address: of a Ray
    cluster, whose machines see the videos and the folder under the same paths. threads: of a worker, for decoding.
    On a TPU or GPU this process must leave the accelerators to the workers: call jax.config.update("jax_platforms",
    "cpu") before the model is loaded. progress: called with (videos done, videos). stride, limits: as in
    `vivit.features`. options: stages, clip_stride, batch and dtype as in `vivit.features`, or top, views, batch and
    dtype as in `vivit.classify`.
    Raises ValueError if an argument is invalid, or the folder is of another run or not empty; OSError if a shard cannot
    be written; ModuleNotFoundError without Ray (extra [bulk]).
    """
    import ray  # noqa: F401  # before anything is written

    folder = as_path(folder).absolute()
    for name, value in (("shard_size", shard_size), ("workers", 1 if workers is None else workers)):
        check_count(name, value)
    check_threads(threads)
    if address is not None:
        check_reachable(address)
    model, limits = with_stride(model, stride), limits or Limits()
    job = new_job(command, model, {**options, "threads": threads, "limits": limits})
    names = read_source(source, column=column)
    shards = -(-len(names) // shard_size)
    record = {
        "command": command,
        "model": job.model_hash,
        "version": version("vivit"),
        "videos": len(names),
        "source": hash_of_names(names),
        "shard_size": shard_size,
        "shards": shards,
        "stride": model.preprocessing.stride,
        **{name: value for name, value in job.options.items() if name in RECORDED},
        "labels": model.labels if command == "classify" else None,
        "max_pixels": limits.pixels,
        "max_packets": limits.packets,
    }
    open_run(folder, record)
    forget_attempts(folder)
    total = Counts(0, 0, None)
    missing = []
    for number in range(shards):
        path = shard_path(folder, number, shards)
        if is_file(path):
            total = _sum(total, read_counts(path))
        else:
            missing.append(number)
    report = progress or (lambda done, total: None)
    report(total.videos, len(names))
    if missing:
        params = sum(leaf.nbytes for _, leaf in leaves(model.params))
        with connected(address, workers, params + names.nbytes), quiet():
            for counts in _computed(missing, _Plan(portable(job), names, folder, shards, shard_size), workers):
                total = _sum(total, counts)
                report(total.videos, len(names))
    return Written(total.videos, shards, total.failed, total.error)


class _Plan(NamedTuple):
    """All that a worker needs to compute any shard."""

    job: Job
    names: pa.LargeStringArray
    folder: Path
    shards: int
    shard_size: int


def _computed(missing: list[int], plan: _Plan, workers: int | None) -> Iterator[Counts]:
    """Computes shards on Ray Data and yields the counts of each when its file is written."""
    import ray

    dataset = ray.data.from_items([{"shard": number} for number in missing], override_num_blocks=len(missing))
    done = dataset.map(cast(Any, _ShardWriter), fn_constructor_args=([ray.put(plan)],), **pool(workers, len(missing)))
    for row in done.iter_rows():
        if row["failure"] is not None:
            raise OSError(row["failure"])
        yield Counts(row["videos"], row["failed"], row["error"])


class _ShardWriter:
    """A worker, which loads the model once, then computes and writes one shard after the other."""

    def __init__(self, stored: list[Any]) -> None:
        import ray

        plan: _Plan = ray.get(stored[0])
        self._plan = plan._replace(job=loaded(plan.job))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Writes a shard. Returns its Counts, and the reason if its file could not be written."""
        job, names, folder, shards, size = self._plan
        path = shard_path(folder, row["shard"], shards)
        try:
            videos = names.slice(row["shard"] * size, size).to_pylist()
            found = attempted(path, videos, partial(tables, job), partial(error_table, job))
            counts = write_shard(path, job.schema, found)
        except (OSError, ValueError) as error:
            return {**Counts(0, 0, None)._asdict(), "failure": str(error)}
        return {**counts._asdict(), "failure": None}


def _sum(one: Counts, other: Counts) -> Counts:
    return Counts(one.videos + other.videos, one.failed + other.failed, one.error or other.error)
