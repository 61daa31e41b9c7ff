"""All puzzles, in order."""

from vivit.puzzles import array_puzzles, fault_puzzles, kernel_puzzles
from vivit.puzzles.puzzle import Puzzle

PUZZLES: tuple[Puzzle, ...] = (*array_puzzles.PUZZLES, *kernel_puzzles.PUZZLES, *fault_puzzles.PUZZLES)
