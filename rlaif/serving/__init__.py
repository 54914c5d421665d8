"""A model behind OpenAI's API on this machine: which server fits it, and its life as a child process."""
