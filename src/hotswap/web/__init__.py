"""What is shown of rollouts to people: accounts as HTML and Markdown, and their plots."""
