"""What the notebooks of the claims compute where it is longer than a cell: one experiment a module."""
