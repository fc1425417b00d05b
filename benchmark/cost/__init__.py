"""What a protocol will cost, and how fast the code is."""
