"""The dashboard: three Panel pages over models and run folders, which training never waits for."""
