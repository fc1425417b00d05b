"""Weights of other code bases and clips of a person's own: import, export, score, predict, verify."""
