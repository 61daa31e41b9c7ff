"""What a model says of videos: labels, features, a portable program. Needs no extra."""
