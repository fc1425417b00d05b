"""In place of rules `train`, `probe` and `record` where a protocol trains nothing: a rule for each variant, one job for all its seeds.

Run by run, most of the time would go into starting Python.
"""

for number, (variant, seeds) in enumerate(to_measure().items(), start=1):

    rule:
        name:
            f"measure_{number}"
        input:
            measure_sources(variant),
            f"{FOLDER}/data/data.json",
            f"{FOLDER}/lpips_backbone.json",
        output:
            expand(of_run(), variant=[variant], seed=seeds),
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
            options=untracked(f"{RUN_OPTIONS} --reuse" if CONFIG.reuse else RUN_OPTIONS),
            variant=variant,
            identities=[PROTOCOL.run(variant, seed).identity("evaluation", "probe") for seed in seeds],
        shell:
            "python -m benchmark measure {params.options} --variant {params.variant} > {log:q} 2>&1"
