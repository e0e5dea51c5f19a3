"""How pages look: colours for light and dark, the style sheet, and the script that draws the plots."""

from __future__ import annotations

from typing import Any

# Contrast to the page, by WCAG 2: of text and of the colours of series at least 4.5; of `@pale`, for what
# stands behind others, at least 3, as graphics need it. `@grid` is decoration.
PALETTES = {
    "light": {
        "@page": "#ffffff",
        "@text": "#1d2329",
        "@muted": "#5a636d",
        "@grid": "#dde1e6",
        "@pale": "#8b96a2",
        "@blue": "#1b63b8",
        "@orange": "#b45309",
        "@green": "#1d7a4f",
        "@purple": "#8a3fa8",
        "@red": "#c0272d",
        "@olive": "#6f6400",
    },
    "dark": {
        "@page": "#14181c",
        "@text": "#e6eaee",
        "@muted": "#a3adb8",
        "@grid": "#333b44",
        "@pale": "#626d79",
        "@blue": "#78b4ff",
        "@orange": "#ffab5e",
        "@green": "#5fd3a0",
        "@purple": "#d9a0f0",
        "@red": "#ff8f8f",
        "@olive": "#d8c94e",
    },
}
SERIES = ("@blue", "@orange", "@green", "@purple", "@red", "@olive")


def _variables(name: str) -> str:
    return " ".join(f"--{key[1:]}: {value};" for key, value in PALETTES[name].items())


STYLE = f"""
:root {{ color-scheme: light dark; {_variables("light")} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables("dark")} }} }}
* {{ box-sizing: border-box; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem;
  background: var(--page); color: var(--text); overflow-wrap: break-word; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; }}
h2 {{ font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .6rem; border-top: 1px solid var(--grid); }}
.verdict {{ font-size: 1.1rem; border-left: 5px solid; padding: .3rem .9rem; margin: 1rem 0; }}
.kept {{ border-color: var(--green); }} .costly {{ border-color: var(--orange); }}
.missed {{ border-color: var(--red); }}
.cards {{ display: grid; gap: .7rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }}
.cards div {{ border: 1px solid var(--grid); border-radius: .5rem; padding: .6rem .8rem; }}
.cards dt, .cards dd + dd, figcaption {{ color: var(--muted); font-size: .875rem; }}
.cards dd {{ margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.3; }}
.cards dd + dd {{ font-weight: 400; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td, th {{ padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--grid); text-align: right; }}
th {{ font-weight: 600; }} tbody th {{ font-weight: 400; }}
td:first-child, th:first-child, .words td {{ text-align: left; }}
td {{ white-space: nowrap; }} td:last-child {{ white-space: normal; }}
@media (max-width: 30rem) {{ table {{ font-size: .8rem; }} td, th {{ padding-right: .5rem; }}
  tbody th {{ min-width: 5.5rem; }} }}
caption {{ text-align: left; color: var(--muted); font-size: .875rem; padding-bottom: .3rem; }}
.wide, pre {{ overflow-x: auto; max-width: 100%; }}
:focus-visible {{ outline: 2px solid var(--blue); outline-offset: 2px; }}
details .wide {{ max-height: 28rem; overflow-y: auto; }}
figure {{ margin: 1rem 0; min-width: 0; }} figcaption {{ margin-bottom: .2rem; }}
.grid {{ display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }}
.plot {{ width: 100%; }}
.buttons {{ margin-top: 2rem; }} .buttons .modebar-container {{ top: -2rem !important; }}
summary {{ cursor: pointer; color: var(--blue); font-size: .875rem; padding: .2rem 0; }}
pre {{ border: 1px solid var(--grid); border-radius: .4rem; padding: .6rem .8rem; font-size: .875rem; }}
code {{ font-size: .9em; }}
@media print {{ details {{ display: none; }} }}
"""

# Plots are drawn when the page opens, and again when the reader turns to dark or light. A finger scrolls the
# page, so dragging zooms only where there is a pointer; a finger has buttons for it, which need no hovering.
SCRIPT = """
addEventListener('DOMContentLoaded', () => {
  const dark = matchMedia('(prefers-color-scheme: dark)'), touch = matchMedia('(pointer: coarse)').matches;
  const merged = (one, other) => {
    const all = {...one};
    for (const [key, value] of Object.entries(other)) {
      const both = value && all[key] && typeof value === 'object' && !Array.isArray(value);
      all[key] = both ? merged(all[key], value) : value;
    }
    return all;
  };
  const painted = (value, palette) => {
    if (typeof value === 'string') return Object.hasOwn(palette, value) ? palette[value] : value;
    if (Array.isArray(value)) return value.map(item => painted(item, palette));
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item, palette)]));
  };
  const draw = () => {
    const palette = PALETTES[dark.matches ? 'dark' : 'light'];
    for (const figure of document.querySelectorAll('figure')) {
      const box = figure.querySelector('.plot');
      const plot = JSON.parse(figure.querySelector('script').textContent);
      const layout = merged(LAYOUT, plot.layout);
      const bar = !plot.small && (touch || 'hover');  // on a small plot it would lie over the curves
      if (bar === 'hover') layout.margin = {...layout.margin, r: 44};
      else layout.modebar = {...layout.modebar, orientation: 'h'};  // above the plot: a phone is narrow
      box.classList.toggle('buttons', bar === true);
      layout.dragmode = touch ? false : 'zoom';
      for (const axis of Object.keys(layout).filter(key => /^[xy]axis/.test(key)))
        layout[axis] = merged(AXIS, layout[axis]);
      const config = {responsive: true, displaylogo: false, displayModeBar: bar,
        plotlyServerURL: '', modeBarButtonsToRemove: UNWANTED};
      Plotly.react(box, painted(plot.data, palette), painted(layout, palette), config);
    }
  };
  draw();
  dark.addEventListener('change', draw);
});
"""
# Buttons that plots do without: what is measured here is nobody else's, so none uploads it.
UNWANTED = ("sendChartToCloud", "sendDataToCloud", "select2d", "lasso2d", "autoScale2d", "toImage")
# The legend stands above the plot: there it covers neither curves nor the title of an axis.
LAYOUT: dict[str, Any] = {
    "autosize": True,
    "margin": {"l": 10, "r": 12, "t": 12, "b": 10, "pad": 2},
    "paper_bgcolor": "@page",
    "plot_bgcolor": "@page",
    "font": {"color": "@text", "size": 12, "family": "system-ui, sans-serif"},
    "hoverlabel": {"bgcolor": "@page", "bordercolor": "@muted", "font": {"color": "@text"}},
    "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
    "modebar": {"orientation": "v", "bgcolor": "@page", "color": "@muted", "activecolor": "@blue"},
    "xaxis": {},
    "yaxis": {},
}
AXIS: dict[str, Any] = {
    "gridcolor": "@grid",
    "linecolor": "@muted",
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 8},
}


def axis(title: str, *, from_zero: bool = False, **more: Any) -> dict[str, Any]:
    """An axis with a title."""
    return {"title": {"text": title}, "rangemode": "tozero" if from_zero else "normal", **more}


def count_axis(title: str, last: int) -> dict[str, Any]:
    """An axis of whole numbers from 0 or 1 to `last`."""
    return axis(title, dtick=max(1, -(-last // 10)))


def line_at(value: float, colour: str = "@muted", dash: str = "dash", across: str = "x") -> dict[str, Any]:
    """A straight line through the whole plot, at a value of one axis."""
    other = "y" if across == "x" else "x"
    place = {f"{across}0": value, f"{across}1": value, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    return {"type": "line", "line": {"color": colour, "width": 1.5, "dash": dash}, **place}
