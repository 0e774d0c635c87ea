"""What nbval compares: text only; pictures and tables are drawn anew each time."""


def pytest_collectstart(collector):
    """Leave out every output form that is a picture, a page, or geonb's own data."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += (
            "text/html",
            "image/svg+xml",
            "application/javascript",
            "application/vnd.plotly.v1+json",
            "application/vnd.geonb.plan.v1+json",
            "application/vnd.geonb.register.v1+json",
            "stderr",
        )
