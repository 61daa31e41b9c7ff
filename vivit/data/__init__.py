"""From labelled video files to batches of clips: which files, which frames, decoded how, in which order."""
