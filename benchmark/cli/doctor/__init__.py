"""The command `doctor`: checks of this machine and of what a protocol needs."""
