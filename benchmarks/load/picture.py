"""Draws a run: requests per second, server processor time per request, and how each goal was met."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.load.measure import Sample
from benchmarks.load.report import Report

READS = ("bare", "nginx", "redis-get", "validate", "starlette")
WRITES = ("redis-set", "create")
LABELS = {
    "bare": "bare uvloop,\nconstant answer",
    "nginx": "nginx\n`return 200`",
    "redis-get": "Redis GET",
    "validate": "TokMesh\nvalidate",
    "starlette": "Starlette +\nuvicorn + Redis",
    "redis-set": "Redis SET,\nfsync always",
    "create": "TokMesh\ncreate, durable",
}
OURS, THEIRS, KERNEL = "#1f6f8b", "#b9c4cc", "#e4a84f"


def draw(report: Report, path: Path) -> None:
    """Writes an SVG, the same bytes for the same figures."""
    matplotlib.rcParams.update({"svg.hashsalt": "tokmesh", "font.size": 9, "font.family": "DejaVu Sans"})
    medians = report.medians()
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, gridspec_kw={"height_ratios": [3, 2]})
    draw_rates(
        axes[0][0], {name: medians[name] for name in READS if name in medians}, "Requests per second, 64 connections"
    )
    draw_cpu(axes[0][1], {name: medians[name] for name in READS if name in medians})
    draw_rates(axes[1][0], {name: medians[name] for name in WRITES if name in medians}, "Durable writes per second")
    draw_memory(axes[1][1], report.figures)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(length=0)
    figure.savefig(path, metadata={"Date": None})


def draw_rates(axes: Axes, samples: dict[str, Sample], title: str) -> None:
    names = list(samples)[::-1]
    rates = [samples[name].operations_per_s for name in names]
    bars = axes.barh([LABELS[name] for name in names], rates, color=[colour(name) for name in names], height=0.62)
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xticks([])
    axes.margins(x=0.16)
    axes.spines["bottom"].set_visible(False)


def draw_cpu(axes: Axes, samples: dict[str, Sample]) -> None:
    """Stacked: user, system. The slowest yardstick is cut at the edge, its figure beside it."""
    names = list(samples)[::-1]
    labels = [LABELS[name] for name in names]
    users = [samples[name].user_us for name in names]
    totals = [samples[name].cpu_us for name in names]
    systems = [samples[name].system_us for name in names]
    axes.barh(labels, users, color=[colour(name) for name in names], height=0.62)
    bars = axes.barh(labels, systems, left=users, color=KERNEL, height=0.62)
    limit = 2.2 * sorted(totals)[len(totals) // 2] if totals else 1
    for bar, user, system, total in zip(bars, users, systems, totals, strict=True):
        inside = total > limit
        text = f"{total:.1f} µs  ({user:.1f} user + {system:.1f} system)" + ("  ➜" if inside else "")
        axes.text(
            limit * 0.985 if inside else total + limit * 0.015,
            bar.get_y() + bar.get_height() / 2,
            text,
            va="center",
            ha="right" if inside else "left",
        )
    axes.set_xlim(0, limit)
    axes.set_title("Server µs of processor time per request (amber: kernel)", loc="left", fontweight="bold")
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def draw_memory(axes: Axes, figures: dict[str, float]) -> None:
    names = [name for name in ("TokMesh bytes per session", "Redis bytes per session") if name in figures]
    bars = axes.barh(
        [name.split()[0] for name in names],
        [figures[name] for name in names],
        color=[OURS if name.startswith("TokMesh") else THEIRS for name in names],
        height=0.5,
    )
    axes.bar_label(bars, [f"{figures[name]:,.0f} B" for name in names], padding=3)
    axes.set_title("Resident bytes per session (400-byte JSON)", loc="left", fontweight="bold")
    axes.set_xticks([])
    axes.margins(x=0.16)
    axes.spines["bottom"].set_visible(False)


def colour(name: str) -> str:
    return OURS if name in ("validate", "create") else THEIRS
