"""Names of the tables and figures of a protocol, for those who plan them without making them."""

TABLES = ("main", "per_frame", "compute", "probe")
TABLE_FORMATS = ("csv", "md", "tex")
FIGURES = ("gradient_norm", "gradient_norm_layers", "mse_per_frame", "film", "openness")
FIGURE_FORMATS = ("pdf", "png")
