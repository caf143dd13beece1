"""Faster forwards on x86 CPUs: oneDNN's packed weights, and Llama in fewer operations."""
