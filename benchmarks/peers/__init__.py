"""Other servers, each with the same model behind it, in an environment of its own."""
