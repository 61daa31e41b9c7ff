"""Features and classes of millions of videos on Ray Data (extra [bulk]), on one machine or a cluster.

`write` computes a whole source into a folder of Parquet shards, and can be resumed. `features` and `classify` map a Ray
Dataset of paths to a Dataset of results. `prelogits` reads the features of a run for `vivit.probe`.
"""

from vivit.bulk.datasets import classify, features
from vivit.bulk.reading import prelogits
from vivit.bulk.runs import Written, write

__all__ = ["Written", "classify", "features", "prelogits", "write"]
