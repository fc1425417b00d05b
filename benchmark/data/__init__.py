"""Clips: moving digits, videos, and the one dispatch over kinds of data."""
