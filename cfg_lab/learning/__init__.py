"""Training for guidance: policies of the scale, models tuned by reinforcement learning, and students."""
