"""The training of runs: loop, step, batches, checkpoints, files of weights."""
