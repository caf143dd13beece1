"""Runs a study: makes cells from configs, decodes and scores the texts of the cells, and stores the results.

A cell is one combination of settings.
"""
