"""What comes after training: evaluate, compare, export, merge, and hold an adapter against its base."""
