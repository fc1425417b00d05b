"""How a step uses its machine: a CUDA graph, streams of their own for runs side by side, processes on a CPU."""
