"""Reads labelled videos for training: tables and folders, splits, clips, augmentation, batches."""
