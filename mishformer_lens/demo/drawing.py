"""The attention pattern as a picture. Importing this module needs the extra ``demo``."""

from pathlib import Path
from typing import Any

import plotly.graph_objects
import torch
from matplotlib.figure import Figure


def draw(pattern: torch.Tensor, words: list[str], title: str, folder: Path) -> list[Path]:
    """Write a heat map of ``pattern`` ``[query_pos, key_pos]`` as PNG and as a page that stands alone; return both."""
    folder.mkdir(parents=True, exist_ok=True)
    values = pattern.float().cpu().numpy()
    return [
        _png(values, words, title, folder / "attention.png"),
        _html(values, words, title, folder / "attention.html"),
    ]


def _png(values: Any, words: list[str], title: str, path: Path) -> Path:
    size = max(5.0, 0.22 * len(words))
    figure = Figure(figsize=(size + 1.5, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="Blues", vmin=0.0, vmax=1.0)
    ticks = range(len(words))
    labels = [word.replace("$", r"\$") for word in words]
    axes.set_xticks(ticks, labels, rotation=90, fontsize=7)
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.set_xlabel("attended token")
    axes.set_ylabel("attending token")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, shrink=0.7)
    figure.savefig(path, dpi=150)
    return path


def _html(values: Any, words: list[str], title: str, path: Path) -> Path:
    places = [f"{index} {word}" for index, word in enumerate(words)]
    figure = plotly.graph_objects.Figure(
        plotly.graph_objects.Heatmap(
            z=values,
            x=places,
            y=places,
            zmin=0.0,
            zmax=1.0,
            colorscale="Blues",
            hovertemplate="from %{y}<br>to %{x}<br>%{z:.3f}<extra></extra>",
        )
    )
    figure.update_layout(title=title, xaxis_title="attended token", yaxis_title="attending token")
    figure.update_yaxes(autorange="reversed")
    figure.write_html(path, include_plotlyjs=True)
    return path
