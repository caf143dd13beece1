"""The answer in one command: which negative prompt, rule and scale suit an aim, with evidence."""
