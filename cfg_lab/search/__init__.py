"""Searching a space of settings: proposing trials, keeping them, and reporting on held-out prompts.

A trial is one point of the space, decoded as one cell on the selection half of the prompts. Hydra's grammar
and Hydra's sweeper are in hydra_plugins/; nothing here needs Hydra.
"""
