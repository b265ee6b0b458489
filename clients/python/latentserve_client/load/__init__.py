"""The load tester behind `latentserve load`.

From what is asked for to what is reported, one concept per module:

    mix, sizes          which calls, how often, how large
    inputs, generative  what they carry: messages that are serialised once, before the load
    open_inference      the same for any server of the Open Inference Protocol
    schedule            when each call of an open loop is meant to be sent
    connection          one connection: on grpcio's completion queue, or on grpc.aio
    generator           the loops: sends, receives, tries again
    outcomes            one row of figures per call
    processes           several generators at once
    run, sweep          warm-up, windows, stability; several loads and the knee
    histogram, summary, intervals   the statistics
    validation          answers under load against answers at rest
    report, ...         terminal, JSON, CSV, HTML; conditions and a baseline
"""
