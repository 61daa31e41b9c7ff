"""What a model looked at: attention, rollout and relevance of one clip, as a page and as a picture."""
