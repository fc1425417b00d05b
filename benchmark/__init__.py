"""Everything measured: configuration, data, training, evaluation, reporting, and the command line over them."""
