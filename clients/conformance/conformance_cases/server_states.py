"""Cases of valid requests that fail: server states, tokens, deadlines, retries."""

from __future__ import annotations

from conformance_cases.case_files import Json
from conformance_cases.suite import GENERATIVE, HEALTH, MODELS, TOKEN, Suite, error, ok

_DEADLINE_MS = 300


def add(suite: Suite) -> None:
    """Add the rest of the group errors, and the groups deadlines and retries."""
    _states(suite)
    _tokens(suite)
    _deadlines(suite)
    _retries(suite)


def _states(suite: Suite) -> None:
    """Add servers that refuse or fail calls: full, starting, draining, failing."""
    sample: Json = {"count": "1", "seed": "1"}
    not_ready = error("UNAVAILABLE", "NOT_READY", retry_info=True)
    full = error(
        "RESOURCE_EXHAUSTED",
        "QUEUE_FULL",
        retry_info=True,
        metadata_keys=["waiting_rows", "queue_rows"],
    )
    failing = error("INTERNAL", "ENGINE_FAILURE", message_lacks=["secret"])
    for name, server, expect in (
        ("queue-full", "full", full),
        ("starting", "starting", not_ready),
        ("draining", "draining", not_ready),
        ("internal", "failing", failing),
    ):
        for rpc, suffix in (("Sample", ""), ("SampleStream", "-stream")):
            # Through the client, whose error must contain all details; and through the stub, to
            # check the trailer with the retry delay.
            for through in ("client", "stub"):
                case = f"errors/{name}{suffix}{'' if through == 'client' else '-trailers'}"
                suite.case(case, GENERATIVE + rpc, sample, expect, server=server, through=through)


def _tokens(suite: Suite) -> None:
    sample: Json = {"count": "1", "seed": "1"}
    refused = error("UNAUTHENTICATED", "TOKEN_REQUIRED")
    for name, metadata in (("no-token", {}), ("wrong-token", {"authorization": "Bearer guess"})):
        suite.case(
            f"errors/{name}",
            GENERATIVE + "Sample",
            sample,
            refused,
            server="token",
            metadata=metadata,
        )
    suite.case("errors/no-token-models", MODELS + "ListModels", {}, refused, server="token")
    suite.case(
        "errors/right-token",
        GENERATIVE + "Sample",
        sample,
        _one_image(suite),
        server="token",
        metadata={"authorization": f"Bearer {TOKEN}"},
    )
    suite.case(
        "errors/health-needs-no-token",
        HEALTH + "Check",
        {"service": ""},
        {"ok": {"status": "SERVING"}},
        server="token",
    )


def _one_image(suite: Suite) -> Json:
    """Return the expectation of Sample with one image and seed 1."""
    model = suite.models["mnist-vae"]
    images = model.run("sample", model.sample_latents(1, 0, 1))[0]
    return ok(suite.served_by("mnist-vae"), images=suite.images("one", images), seed="1")


def _deadlines(suite: Suite) -> None:
    """Add calls to a server whose engine never finishes."""
    sample: Json = {"count": "1", "seed": "1"}
    digits = {"images": {"tensor": suite.files.tensor("digits-0-2", suite.uint8(0, 2))}}
    for name, rpc, request in (
        ("sample", "Sample", sample),
        ("reconstruct", "Reconstruct", digits),
        ("stream", "SampleStream", sample),
    ):
        suite.case(
            f"deadlines/{name}",
            GENERATIVE + rpc,
            request,
            error("DEADLINE_EXCEEDED"),
            server="held",
            deadline_ms=_DEADLINE_MS,
        )
    suite.case(
        "deadlines/retries-stay-within",
        GENERATIVE + "Sample",
        sample,
        # The pushback of 1 s exceeds the deadline: gRPC reports UNAVAILABLE at once, or
        # DEADLINE_EXCEEDED at the deadline.
        {"error": {"codes": ["DEADLINE_EXCEEDED", "UNAVAILABLE"]}},
        server="starting",
        deadline_ms=_DEADLINE_MS,
        retry=True,
    )
    for name, rpc in (("sample", "Sample"), ("stream", "SampleStream")):
        suite.case(
            f"deadlines/{name}-cancelled-by-the-client",
            GENERATIVE + rpc,
            sample,
            error("CANCELLED"),
            server="held",
            through="stub",
            cancel_after_ms=100,
        )


def _retries(suite: Suite) -> None:
    """Add calls whose first attempts are refused: `conformance-refuse: CODE TIMES`."""
    sample: Json = {"count": "1", "seed": "1"}
    for name, refusal, rpc in (
        ("unavailable", "UNAVAILABLE 2", "Sample"),
        ("queue-full", "RESOURCE_EXHAUSTED 2", "Sample"),
        ("cancelled-by-the-server", "CANCELLED 2", "Sample"),
        ("stream", "UNAVAILABLE 1", "SampleStream"),
    ):
        suite.case(
            f"retries/{name}",
            GENERATIVE + rpc,
            sample,
            _one_image(suite),
            server="refusing",
            metadata={"conformance-refuse": refusal},
            retry=True,
        )
    for name, refusal, reason, attempts in (
        ("gives-up-after-four", "UNAVAILABLE 9", "NOT_READY", "4"),
        ("not-of-a-bad-request", "INVALID_ARGUMENT 1", "INVALID_REQUEST", "1"),
        ("not-of-an-internal-error", "INTERNAL 1", "ENGINE_FAILURE", "1"),
    ):
        suite.case(
            f"retries/{name}",
            GENERATIVE + "Sample",
            sample,
            error(
                refusal.partition(" ")[0],
                reason,
                retry_info=reason == "NOT_READY",
                metadata={"attempt": attempts},
            ),
            server="refusing",
            metadata={"conformance-refuse": refusal},
            retry=True,
        )
