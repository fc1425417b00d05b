"""MLflow, a mirror of the run folders for people."""
