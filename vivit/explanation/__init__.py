"""Explains the classification of a video: attention, rollout and relevance of one clip, as a page or a picture."""
