"""One module a runtime; `hotswap.plugins` finds them by name. Nothing heavy is imported here."""
