"""What the processes of one node share: words in memory, frames, messages, channels."""
