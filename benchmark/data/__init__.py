"""Moving digits: the originals, the digit banks, the endless stream and the fixed clips."""
