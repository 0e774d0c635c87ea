"""Every view of geonb, installed as geonb.widgets."""
