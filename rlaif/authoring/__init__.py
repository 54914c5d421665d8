"""Writing a constitution: what is wrong with one, what an edit changes, and the files that others keep theirs in."""
