"""Weights in and out of files: our own format, the published ones, and image models to start from.

`load.py` recognises a file by its content and calls the rest, `save.py` writes. Nothing is ever unpickled.
"""
