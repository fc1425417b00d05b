"""What a network keeps of its past, beside the gradients: time constants, forward influence, Lyapunov exponents."""
