"""A study: from a config to cells, planned texts, decoded texts, scores and costs in a results folder."""
