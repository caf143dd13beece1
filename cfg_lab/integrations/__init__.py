"""The lab's models in programs of others, such as lm-eval."""
