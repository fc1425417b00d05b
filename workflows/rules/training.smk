"""The weights of the runs, in one of three ways that the protocol chooses.

`train`, a job a run. Where `cohort` or `stack` is above 1, `train_cohort_<n>`, a job for a group of variants and seeds,
which are trained side by side. Where nothing is trained, `measure_<n>`, a job for all seeds of a variant, which makes
its gradients and records as well: run by run, most of the time would go into starting Python.

A training that the folder proves to be of this config, code and data is taken (`--skip-trained`). So a cohort trains
those of its runs alone that are due, and results that were copied into another checkout are not trained again. Snakemake
counts the outputs of such a job as new, and scores and probes its runs again.
"""

if not TRAINS:

    to_make = rule_parts.seeds_to_make(run for run, kept in RECORDS if kept is None)
    for number, (variant, seeds) in enumerate(to_make.items(), start=1):

        rule:
            name:
                f"measure_{number}"
            input:
                rule_parts.measure_sources(PROTOCOL, variant),
                f"{FOLDER}/data/data.json",
                f"{FOLDER}/lpips_backbone.json",
            output:
                expand(in_run(*rule_parts.run_files(PROTOCOL)), variant=[variant], seed=seeds),
            log:
                f"{FOLDER}/logs/measure/{variant}.log",
            benchmark:
                f"{FOLDER}/benchmarks/measure/{variant}.tsv"
            conda:
                "../../environment.yml"
            threads: PROTOCOL.training.threads
            resources:
                gpu=GPU,
                mem_mb=PROTOCOL.job.memory_mb,
                runtime=PROTOCOL.job.minutes,
            params:
                options=untracked(OPTIONS.measure),
                variant=variant,
                identities=[PROTOCOL.run(variant, seed).identity("evaluation", "probe") for seed in seeds],
            shell:
                "python -m benchmark measure {params.options} --variant {params.variant} > {log:q} 2>&1"

elif PROTOCOL.cohort == PROTOCOL.stack == 1:

    rule train:
        input:
            run_sources("train"),
            f"{FOLDER}/data/data.json",
        output:
            f"{RUN}/model.safetensors",
        log:
            f"{FOLDER}/logs/train/{{variant}}.seed={{seed}}.log",
        benchmark:
            f"{FOLDER}/benchmarks/train/{{variant}}.seed={{seed}}.tsv"
        conda:
            "../../environment.yml"
        threads: PROTOCOL.training.threads
        resources:
            gpu=GPU,
            mem_mb=PROTOCOL.job.memory_mb,
            runtime=PROTOCOL.job.minutes,
        params:
            options=untracked(OPTIONS.run),
            identity=identity(),
        shell:
            "python -m benchmark train {params.options} --variant {wildcards.variant} --seed {wildcards.seed} --skip-trained"
            " > {log:q} 2>&1"

else:

    for number, (variants, seeds) in enumerate(PROTOCOL.groups(), start=1):

        rule:
            name:
                f"train_cohort_{number}"
            input:
                rule_parts.stage_sources(PROTOCOL, "train", variants),
                f"{FOLDER}/data/data.json",
            output:
                expand(f"{RUN}/model.safetensors", variant=variants, seed=seeds),
            log:
                f"{FOLDER}/logs/train/cohort-{number}.log",
            benchmark:
                f"{FOLDER}/benchmarks/train/cohort-{number}.tsv"
            conda:
                "../../environment.yml"
            threads: PROTOCOL.training.threads
            resources:
                gpu=GPU,
                mem_mb=PROTOCOL.job.memory_mb * len(variants) * len(seeds),
                runtime=PROTOCOL.job.minutes * len(variants) * len(seeds),
            params:
                options=untracked(OPTIONS.run),
                variants=",".join(variants),
                seeds=",".join(map(str, seeds)),
                identities=[run_of(variant, seed).identity() for variant in variants for seed in seeds],
            shell:
                "python -m benchmark train {params.options} --variant {params.variants} --seed {params.seeds} --skip-trained"
                " > {log:q} 2>&1"
