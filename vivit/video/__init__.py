"""Reads video files: opens, indexes, samples, decodes, scales and crops them. Has no labels and no training."""
