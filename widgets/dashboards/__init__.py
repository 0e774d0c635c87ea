"""The dashboard: Panel pages over models, run folders and the ledger of claims, which training never waits for."""
