"""The scores and the gradients of one run; the error of the best predictor, and of the baselines on validation clips."""


rule evaluate:
    input:
        run_sources("evaluate"),
        scored,
        f"{FOLDER}/data/data.json",
        f"{FOLDER}/lpips_backbone.json",
    output:
        in_run("frames.parquet", "examples.npz", "film.png", "film.gif", *rule_parts.longer_scores(PROTOCOL)),
    log:
        f"{FOLDER}/logs/evaluate/{{variant}}.seed={{seed}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/evaluate/{{variant}}.seed={{seed}}.tsv"
    wildcard_constraints:
        variant=MADE_BY_RUN,
    conda:
        "../../environment.yml"
    threads: PROTOCOL.training.threads
    resources:
        gpu=GPU,
        mem_mb=PROTOCOL.job.memory_mb,
        runtime=PROTOCOL.job.minutes,
    params:
        options=untracked(OPTIONS.run),
        identity=identity("evaluation"),
    shell:
        "python -m benchmark evaluate {params.options} --variant {wildcards.variant} --seed {wildcards.seed} > {log:q} 2>&1"


if PROTOCOL.learnt:

    rule baselines:
        input:
            rule_parts.stage_sources(PROTOCOL, "baselines"),
            data_files(),
        output:
            baseline_files(),
        log:
            f"{FOLDER}/logs/baselines.log",
        benchmark:
            f"{FOLDER}/benchmarks/baselines.tsv"
        conda:
            "../../environment.yml"
        params:
            options=untracked(OPTIONS.place),
            data=PROTOCOL.data.model_dump(mode="json"),
            names=PROTOCOL.baselines,
        shell:
            "python -m benchmark baselines {params.options} > {log:q} 2>&1"


if PROTOCOL.evaluation.floor:

    rule floor:
        input:
            rule_parts.stage_sources(PROTOCOL, "floor"),
            data_files(),
        output:
            floor_files(),
        log:
            f"{FOLDER}/logs/floor.log",
        benchmark:
            f"{FOLDER}/benchmarks/floor.tsv"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=PROTOCOL.job.memory_mb,
            runtime=PROTOCOL.job.minutes,
        params:
            options=untracked(OPTIONS.place),
            data=PROTOCOL.data.model_dump(mode="json"),
            frames_seen=PROTOCOL.evaluation.floor,
        shell:
            "python -m benchmark floor {params.options} > {log:q} 2>&1"


if TRAINS:

    rule probe:
        input:
            run_sources("probe"),
            f"{RUN}/model.safetensors",
            f"{FOLDER}/data/data.json",
        output:
            in_run(*rule_parts.probe_files(PROTOCOL), "probe.png"),
        log:
            f"{FOLDER}/logs/probe/{{variant}}.seed={{seed}}.log",
        benchmark:
            f"{FOLDER}/benchmarks/probe/{{variant}}.seed={{seed}}.tsv"
        conda:
            "../../environment.yml"
        threads: PROTOCOL.training.threads
        resources:
            gpu=GPU,
            mem_mb=PROTOCOL.job.memory_mb,
            runtime=PROTOCOL.job.minutes,
        params:
            options=untracked(OPTIONS.run),
            identity=identity("probe"),
        shell:
            "python -m benchmark probe {params.options} --variant {wildcards.variant} --seed {wildcards.seed} > {log:q} 2>&1"
