"""Text and made-up tokens for language models."""
