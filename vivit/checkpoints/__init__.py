"""Reads and writes weights: our own format, the published formats, and image models to start from.

`load.py` recognises a file by its content, `save.py` writes. Pickles are never read.
"""
