"""What is wrong with a text or a column of texts, as pure functions; no model is asked."""
