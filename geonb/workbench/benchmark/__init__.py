"""The zero-knob benchmark: models, domains, arms, the queue of runs, and what the rows say."""
