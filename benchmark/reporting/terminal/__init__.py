"""What a person sees in a terminal: a line a job, how a workflow ends, how far each run is."""
