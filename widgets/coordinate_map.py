"""CoordinateMap: tasks and styles in the kernel k(theta, theta'), and whether their labels are clusters there."""

from __future__ import annotations

from typing import Any

from geonb.coordinates.clusters import CoordinateClusters
from geonb.widgets.view import View, picture_html


class CoordinateMap(View):
    """Named coordinates as a heat map of k ordered by label, beside a map in which near means alike.

    `source` is a `CoordinateClusters`, from `coordinate_clusters(model, thetas, names, labels)`. Two coordinates of k = 1 give
    the same weights, of k = 0 do not touch each other; the silhouette stands beside what permuted labels give, and
    beside the control where there is one.
    """

    name = "coordinate_map"

    def __init__(self, source: CoordinateClusters) -> None:
        super().__init__()
        self.clusters = source

    def __repr__(self) -> str:
        return f"CoordinateMap({len(self.clusters.names)} coordinates, {len(self.clusters.found.by_label)} labels)"

    @property
    def record(self) -> CoordinateClusters:
        """The figures that are shown."""
        return self.clusters

    def state(self) -> dict[str, Any]:
        from geonb.widgets.coordinate_picture import colour_of, ordered

        record, order = self.clusters, ordered(self.clusters)
        labels = list(record.found.by_label)
        sides = [("coordinates, 1 - k", record.found)]
        sides += [(record.control_name, record.control)] if record.control is not None else []
        return {
            "sentence": record.sentence,
            "shown": record.shown,
            "labels": [
                {"name": label, "colour": colour, "hollow": hollow, "silhouette": record.found.by_label[label]}
                for label, (colour, hollow) in ((label, colour_of(labels, label)) for label in labels)
            ],
            "items": [
                {
                    "name": record.names[item],
                    "label": labels.index(record.labels[item]),
                    "place": list(record.places[item]),
                }
                for item in order
            ],
            # three digits are what a shade shows, at a third of the bytes
            "kernel": [[round(record.kernel[item][other], 3) for other in order] for item in order],
            "sides": [
                {
                    "name": name,
                    "value": one.silhouette.value,
                    "interval": list(one.silhouette.interval or ()),
                    "null": list(one.null_interval),
                    "p": one.p,
                }
                for name, one in sides
            ],
        }

    def static(self) -> str:
        from geonb.widgets.coordinate_picture import coordinate_picture

        return picture_html(coordinate_picture(self.clusters), alt=self.clusters.sentence)

    def figure(self) -> Any:
        from geonb.widgets.coordinate_picture import coordinate_figure

        return coordinate_figure(self.clusters, self.clusters.found.summary())
