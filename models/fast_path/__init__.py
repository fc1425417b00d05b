"""The same cells, faster: merged gate convolutions, and convolution after Winograd on a CPU."""
