"""Trains, evaluates and probes every run of a protocol and makes its tables and figures.

snakemake --cores 8 all
snakemake --cores 8 all --config protocol=smoke data_dir=data results_dir=results download=true

snakemake --report results/quick/report.html, with the same --config, puts them into one file to browse.
"""


include: "workflows/rules/common.smk"
include: "workflows/rules/inputs.smk"
include: "workflows/rules/report.smk"
include: "workflows/rules/setup.smk"
include: "workflows/rules/data.smk"
include: "workflows/rules/training.smk"
include: "workflows/rules/evaluation.smk"
include: "workflows/rules/results.smk"


report: "workflows/report/workflow.rst"


# Seconds each, most of them at the network: on a cluster they run beside Snakemake.
localrules:
    init_store,
    plan,
    data,
    backbone,
    record,
    sync,
    tables,
    figures,


wildcard_constraints:
    variant="[a-z0-9]+(-[a-z0-9]+)*",
    seed="[0-9]+",


onstart:
    begin()


onsuccess:
    end(log, failed=False)


onerror:
    end(log, failed=True)


rule all:
    default_target: True
    input:
        rules.tables.output,
        rules.figures.output,
        made_here(".mirrored"),
