"""What the report shows: tables, figures and animations, each with its caption and its place."""

from pathlib import Path

from benchmark.reporting.outputs import caption_file, figures_of, films_of, paired_films, state_gradients_of, tables_of
from benchmark.reporting.registry import ANIMATION, FIGURES, STATE_GRADIENT, TABLES


def caption(name):
    """Where the command that makes the table, figure or set of that name writes how to read it."""
    return str(caption_file(Path(FOLDER), name))


def numbered(entries):
    """The titles of `entries` of the registry with their place within a question: the report sorts by letters and digits."""
    places, found = {}, {}
    for name, entry in entries.items():
        places[entry.question] = place = places.get(entry.question, 0) + 1
        found[name] = f"{place:2} {entry.title}"
    return found


def shown(path, entry, name, part, **labels):
    """`path` in the report, with question and caption of its `entry` in the registry, in the list `part`."""
    where = os.path.abspath(caption(name))
    return report(path, caption=where, category=entry.question, subcategory=part, labels=labels)


def tables():
    """The tables in the format that the report shows, and their captions."""
    titles = numbered({name: TABLES[name] for name in tables_of(PROTOCOL)})
    return [
        *(
            shown(f"{FOLDER}/tables/{name}.html", TABLES[name], name, "Tables", table=title)
            for name, title in titles.items()
        ),
        *map(caption, titles),
    ]


def figures():
    """The figures in the format that the report shows, and their captions."""
    titles = numbered({name: FIGURES[name] for name in figures_of(PROTOCOL)})
    return [
        *(
            shown(f"{FOLDER}/figures/{name}.png", FIGURES[name], name, "Figures", figure=title)
            for name, title in titles.items()
        ),
        *map(caption, titles),
    ]


def films():
    """A page with an animation for each variant, and their caption; those in pairs are parted by their highway alone."""
    found, pairs = [], paired_films(PROTOCOL)
    for variant in films_of(PROTOCOL):
        part, labels = "Animations of other variants", {"variant": PROTOCOL.first_run(variant).label}
        if variant in pairs:
            names, highway = pairs[variant]
            part, labels = "Animations, with and without highway", {"variants": names, "highway": highway}
        found.append(shown(f"{FOLDER}/films/{variant}.html", ANIMATION, "variant_film", part, **labels))
    return [*found, caption("variant_film")] if found else []


def state_gradients():
    """The gradient of each state, for variants with and without highway, and their caption."""
    found = []
    for state, highway in state_gradients_of(PROTOCOL):
        path, labels = f"{FOLDER}/states/{state}-{highway}.png", {"state": state, "highway": highway}
        found.append(shown(path, STATE_GRADIENT, "state_gradient", "By state", **labels))
    return [*found, caption("state_gradient")] if found else []
