"""What is wrong with a preference dataset, anyone's, and what a model would learn from it beside what was meant."""
