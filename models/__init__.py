"""The networks: cells, gradient highway and the stacked predictor. Imports nothing of `benchmark`."""
