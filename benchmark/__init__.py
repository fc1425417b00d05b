"""Everything measured: data, training, evaluation, probe, tracking and tables."""
