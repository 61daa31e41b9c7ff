"""What loading did: where every leaf comes from, and what was decided on the way."""

from typing import NamedTuple


class Origin(NamedTuple):
    """One line of a report: where a leaf of a model comes from."""

    leaf: str  # "encoder/blocks/mlp/out/kernel"
    shape: tuple[int, ...]
    source: str  # names in the file; "" for what is fresh
    change: str  # "as it is", "transposed", "inflated over 2 frames", "fresh: zeros", …


class Report(NamedTuple):
    """Every leaf with its origin, and notes: the format, the preprocessing, what was left out. Prints as a table."""

    origins: tuple[Origin, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [("leaf", "shape", "change", "from")]
        rows += [(one.leaf, "×".join(map(str, one.shape)), one.change, one.source or "-") for one in self.origins]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        ]
        return "\n".join([*(lines if self.origins else []), *self.notes])

    def __repr__(self) -> str:
        return f"Report(where {len(self.origins)} leaves come from, {len(self.notes)} notes: print it)"

    def noted(self, *notes: str) -> "Report":
        """This report with further notes."""
        return self._replace(notes=(*self.notes, *notes))
