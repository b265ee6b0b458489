"""Load tester: `latentserve load`.

The folders follow the data, and each one may import only those before it:

    plan             what to send and when: options, mix, workload, schedule
    measure          call records, statistics, validation of replies, server metrics
    drive            connections, generators, processes, runs, sweeps
    report           JSON data, text, CSV, HTML, baseline
    open_inference   requests and replies of the Open Inference Protocol; beside report

`command` runs the whole test. Comes in: the parsed command line. Goes out: a `CommandResult`.
"""
