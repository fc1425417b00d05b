"""Clips of moving digits, made on the training device."""
