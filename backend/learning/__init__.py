"""The learning loop as the backend sees it: what is known, what was set, where things lie."""
