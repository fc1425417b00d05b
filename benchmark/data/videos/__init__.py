"""Clips of videos: data sets and files of them, decoded once, read as windows."""
