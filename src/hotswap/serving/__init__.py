"""The data plane: the worker's side (plane, link, tally) and the host's (executor, host loop)."""
