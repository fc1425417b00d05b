"""What the report shows: tables, figures and films, each with its caption and its place."""

from benchmark.reporting.outputs import figures_of, films_of, paired_films, state_gradients_of, tables_of

REPORT = ROOT / "workflows" / "report"


def shown(path, caption, part, **labels):
    """`path` in the report: how to read it is `caption`, whose first line names its question, in which it is in `part`."""
    question = (REPORT / f"{caption}.rst").read_text().partition("\n")[0].removeprefix(".. ")
    return report(path, caption=REPORT / f"{caption}.rst", category=question, subcategory=part, labels=labels)


def tables():
    """The tables in the format that the report shows."""
    return [
        shown(f"{FOLDER}/tables/{name}.html", name, "Tables", table=name.replace("_", " "))
        for name in tables_of(PROTOCOL)
    ]


def figures():
    """The figures in the format that the report shows."""
    return [
        shown(f"{FOLDER}/figures/{name}.png", name, "Figures", figure=name.replace("_", " "))
        for name in figures_of(PROTOCOL)
    ]


def films():
    """A page with a moving picture for each variant; those in pairs are parted by their highway alone."""
    found, pairs = [], paired_films(PROTOCOL)
    for variant in films_of(PROTOCOL):
        part, labels = "Films of other variants", {"variant": variant}
        if variant in pairs:
            part, labels = "Films, with and without highway", {"variant": pairs[variant]}
            labels["highway"] = "without" if variant == pairs[variant] else "with"
        found.append(shown(f"{FOLDER}/films/{variant}.html", "variant_film", part, **labels))
    return found


def state_gradients():
    """The gradient of each state, for variants with and without highway."""
    return [
        shown(f"{FOLDER}/states/{state}-{half}.png", "state_gradient", "By state", state=state, highway=half)
        for state, half in state_gradients_of(PROTOCOL)
    ]
