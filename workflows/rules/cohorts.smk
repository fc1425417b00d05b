"""In place of rule `train` where `cohort` is above 1: a rule for each group of variants, which one job trains side by side.

A job is due when one of its runs is, and trains those runs alone: the verb knows by config, code and digits which they are.
Snakemake then counts all outputs of the job as new, and scores and probes its other runs again too.
"""

for number, variants in enumerate(PROTOCOL.cohorts(), start=1):

    rule:
        name:
            f"train_cohort_{number}"
        input:
            cohort_sources(variants),
            f"{FOLDER}/data/data.json",
        output:
            expand(f"{RUN}/model.safetensors", variant=variants, allow_missing=True),
        log:
            f"{FOLDER}/logs/train/cohort-{number}.seed={{seed}}.log",
        benchmark:
            f"{FOLDER}/benchmarks/train/cohort-{number}.seed={{seed}}.tsv"
        conda:
            "../../environment.yml"
        threads: PROTOCOL.training.threads
        resources:
            gpu=GPU,
            mem_mb=PROTOCOL.job.memory_mb * len(variants),
            runtime=PROTOCOL.job.minutes * len(variants),
        params:
            options=untracked(RUN_OPTIONS),
            variants=",".join(variants),
            identities=cohort_identities(variants),
        shell:
            "python -m benchmark train {params.options} --variant {params.variants} --seed {wildcards.seed} --skip-trained"
            " 2>&1 | tee -i {log:q}"
