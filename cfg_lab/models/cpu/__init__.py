"""Faster forward passes on x86 CPUs.

Weights of linear layers are packed: stored in the memory layout that the library oneDNN multiplies fastest.
Models of the Llama family run in fewer and larger operations.
"""
