"""Negative prompts that are found for the user: candidates, a choice on one half of the prompts, evidence."""
