"""Rounds of generate, train and evaluate: each a command of its own, and a model that must be better to go on."""
