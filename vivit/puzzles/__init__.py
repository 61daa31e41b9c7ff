"""Puzzles: functions of the models, their gradients and kernels that a student writes and a program grades.

docs/puzzles.md is the guide. puzzle.py says what a puzzle is; array_puzzles.py, kernel_puzzles.py and fault_puzzles.py
hold them, templates/ the files that a student gets. runner.py runs a solution in a process of its own, which knows
arguments and never the answers; process.py starts it; grading.py compares.
"""
