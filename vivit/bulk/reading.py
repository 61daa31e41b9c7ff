"""Reads the features of a run of `vivit bulk features` for `vivit probe`."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vivit.bulk.results import hash_of_model
from vivit.bulk.shards import read_record, shard_path
from vivit.files.paths import is_file
from vivit.model_data import ModelData

STAGE = "prelogits"


def prelogits(folder: str | Path, model: ModelData) -> dict[str, np.ndarray | ValueError]:
    """Returns the features before the head of every video of a run of `vivit bulk features`, float64[c] by its name.

    They are the mean over the clips of the video; a video without a result has its error. Raises ValueError unless the
    run is finished, has the stage "prelogits", and is of this model: the hash of weights, config and preprocessing,
    which includes the stride.
    """
    record = read_record(folder)
    if record["command"] != "features" or STAGE not in record.get("stages", ()):
        raise ValueError(f"{folder} has no {STAGE}: it must be a run of vivit bulk features with this stage")
    if (expected := hash_of_model(model)) != record["model"]:
        reason = "its weights, config, preprocessing and stride must be the same"
        raise ValueError(f"{folder} is of the model {record['model'][:12]}…, not of {expected[:12]}…: {reason}")
    found: dict[str, np.ndarray | ValueError] = {}
    for number in range(record["shards"]):
        path = shard_path(folder, number, record["shards"])
        if not is_file(path):
            raise ValueError(f"{folder} is not finished, {path.name} is missing: run vivit bulk again to complete it")
        found |= _means(path, expected)
    return found


def _means(path: Path, expected: str) -> dict[str, np.ndarray | ValueError]:
    """Returns the result of every video of a shard."""
    try:
        table = pq.read_table(path, columns=["video", STAGE, "error", "model"])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if table["model"].unique().to_pylist() != [expected]:
        raise ValueError(f"{path} has rows of another model than its run: remove it and run vivit bulk again")
    videos, errors = table["video"].to_pylist(), table["error"].to_pylist()
    rows = table[STAGE].combine_chunks()
    begins = [row for row, name in enumerate(videos) if not row or name != videos[row - 1]]
    found: dict[str, np.ndarray | ValueError] = {}
    for begin, end in zip(begins, [*begins[1:], len(videos)], strict=True):  # the rows of a video follow each other
        if errors[begin] is not None:
            found[videos[begin]] = ValueError(errors[begin])
        else:
            values = rows.slice(begin, end - begin).flatten().to_numpy()
            found[videos[begin]] = values.reshape(end - begin, -1).astype(np.float64).mean(0)
    return found
