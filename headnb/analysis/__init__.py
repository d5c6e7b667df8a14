"""What fine-tuning changes in the heads, and what follows from it for data and training."""
