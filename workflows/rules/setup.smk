"""What all runs share besides the clips: the MLflow store, the count of parameters and the network under LPIPS.

No training waits for the store or the plan: as `ancient` inputs, a change in them would hide from Snakemake (9.27) every
other reason to train again. Their priority lets them go first.
"""


rule init_store:
    output:
        touch(f"{FOLDER}/.store"),
    log:
        f"{FOLDER}/logs/init-store.log",
    benchmark:
        f"{FOLDER}/benchmarks/init-store.tsv"
    priority: 1
    conda:
        "../../environment.yml"
    params:
        options=untracked(OPTIONS.protocol),
        protocol=PROTOCOL.name,
    shell:
        "python -m benchmark init-store {params.options} > {log:q} 2>&1"


rule plan:
    input:
        rule_parts.plan_sources(PROTOCOL),
    output:
        f"{FOLDER}/plan.csv",
    log:
        f"{FOLDER}/logs/plan.log",
    benchmark:
        f"{FOLDER}/benchmarks/plan.tsv"
    priority: 1
    conda:
        "../../environment.yml"
    params:
        options=untracked(OPTIONS.place),
        models=[run.model.to_dict() for run in PROTOCOL.runs()],
        frames=[PROTOCOL.data.context, PROTOCOL.data.horizon],
        target=PROTOCOL.target_parameters,
    shell:
        "python -m benchmark plan {params.options} --counts-only > {log:q} 2>&1"


rule backbone:
    input:
        rule_parts.stage_sources(PROTOCOL, "backbone"),
    output:
        f"{FOLDER}/lpips_backbone.json",
    log:
        f"{FOLDER}/logs/backbone.log",
    benchmark:
        f"{FOLDER}/benchmarks/backbone.tsv"
    conda:
        "../../environment.yml"
    params:
        options=untracked(OPTIONS.fetch),
        net=PROTOCOL.evaluation.lpips_backbone,
        where=[CONFIG.data_dir, CONFIG.download],
    shell:
        "python -m benchmark backbone {params.options} > {log:q} 2>&1"
