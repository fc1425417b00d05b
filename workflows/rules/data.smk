"""The fixed clips, and the digits or films that all clips are made of."""


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
