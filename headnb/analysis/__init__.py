"""Analyses of how fine-tuning changes heads, and their use for data selection and training."""
