"""Still digits, of which clips are made: banks of them, their prepared folder, the numbering of endless clips."""
