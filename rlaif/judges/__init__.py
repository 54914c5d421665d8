"""Which of two responses is better by a principle, and how good is one: answers of a model, read with care."""
