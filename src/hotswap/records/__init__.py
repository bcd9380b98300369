"""What was predicted, what became known later, and what both say together."""
