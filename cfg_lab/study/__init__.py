"""Runs a study: turns a config into cells, plans, decodes and scores their texts, and stores the results."""
