"""Recorded studies: one folder each, with its question, prediction, command, numbers and verdict."""
