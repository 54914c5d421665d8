"""Models held against prompts: do they refuse what they should, and only that; and whose answers are better."""
