"""The fixed clips, and the digits or films that all clips are made of."""

from benchmark.config.data_sections import VideosConfig
from benchmark.reporting.outputs import files_in, files_of_data


def data_files():
    """What the clips of the protocol are made of, and what they are."""
    return [f"{FOLDER}/data/{name}" for name in files_of_data(PROTOCOL.data)]


def data_origin():
    """What decides the clips besides the protocol: of films which there are, and how many test clips go on how far."""
    data = PROTOCOL.data
    if isinstance(data, VideosConfig):
        return [files_in(CONFIG.data_dir / data.videos), PROTOCOL.evaluation.beyond, PROTOCOL.shown_clips()]
    return [CONFIG.data_dir, CONFIG.download] if data.public_test else None


rule data:
    input:
        rule_parts.stage_sources(PROTOCOL, "data"),
    output:
        data_files(),
    log:
        f"{FOLDER}/logs/data.log",
    benchmark:
        f"{FOLDER}/benchmarks/data.tsv"
    conda:
        "../../environment.yml"
    params:
        options=untracked(OPTIONS.fetch),
        data=PROTOCOL.data.model_dump(mode="json"),
        where=data_origin(),
    shell:
        "python -m benchmark data {params.options} > {log:q} 2>&1"
