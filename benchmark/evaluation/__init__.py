"""What a network is worth: forecasts, metrics, and the gradient probe."""
