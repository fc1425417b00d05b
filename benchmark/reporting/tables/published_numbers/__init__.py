"""Numbers that other people published, as data; README.md says what columns and marks mean."""
