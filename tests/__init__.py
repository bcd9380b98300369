"""hotswap's tests."""
