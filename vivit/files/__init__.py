"""Paths, JSON files, npz files and atomic writing."""
