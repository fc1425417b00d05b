"""Recall: clips of which the first digit must be given out at the end."""
