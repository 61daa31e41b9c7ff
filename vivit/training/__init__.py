"""Training: recipe, optimiser, loss, training step and sharding over devices. Needs the [train] extra."""
