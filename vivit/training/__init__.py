"""Training: recipes, optimiser, losses, the step, and how it is split over devices. Needs the [train] extra."""
