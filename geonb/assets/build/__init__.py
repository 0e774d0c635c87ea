"""How the embedded model and its data are rebuilt: `python -m geonb.assets.build`."""
