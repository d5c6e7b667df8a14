"""Fine-tuning, and what is tracked along the way."""
