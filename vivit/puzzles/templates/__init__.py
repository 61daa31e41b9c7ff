"""The files that `vivit puzzles start` copies: one function each, with its docstring and a hint, and no body."""
