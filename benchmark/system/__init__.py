"""Files, locks, signals, devices, processes and the console: knows no experiment."""
