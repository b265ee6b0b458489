import { type Metadata, type ServiceError, status } from "@grpc/grpc-js";

import { BadRequest, ErrorInfo, RetryInfo } from "./generated/google/rpc/error_details.js";
import { Status } from "./generated/google/rpc/status.js";

/** Name of a gRPC status code. */
export type Code = Exclude<keyof typeof status, "OK">;

/** Kind of an error, more specific than its code. */
export type ErrorKind =
  /** The queue of the model is full; retry after `retryAfterMs`. */
  | "queue-full"
  /** The message exceeds a size limit. Send fewer images, or request uint8 or PNG; do not retry. */
  | "message-too-large"
  /** The model lacks the operation; `metadata.operations` lists those it supports. */
  | "operation-not-supported"
  /** Unknown model or version; `metadata.models` lists the available models. */
  | "model-not-found"
  /** The reply violates the protocol; the versions of server and client differ. */
  | "bad-reply";

/** An invalid field of a request. */
export interface Violation {
  /** Dotted path in the request, for example `images.tensor.shape`. */
  readonly field: string;
  /** The value received and the value expected. */
  readonly description: string;
}

interface Details {
  kind?: ErrorKind | undefined;
  reason?: string;
  domain?: string;
  metadata?: Readonly<Record<string, string>>;
  violations?: readonly Violation[];
  retryAfterMs?: number | undefined;
  cause?: unknown;
}

/**
 * Error of a call: returned by the server, raised by the transport, or found before anything was
 * sent (the code is then INVALID_ARGUMENT). An aborted call is CANCELLED, with the reason of the
 * signal as `cause`.
 */
export class LatentserveError extends Error {
  override readonly name = "LatentserveError";
  readonly kind: ErrorKind | undefined;
  /** The server's name of the error, for example `QUEUE_FULL`; empty if it sent none. */
  readonly reason: string;
  /** `latentserve` if there is a reason. */
  readonly domain: string;
  /** Details of the reason; `request_id` identifies the call in the server's log. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The invalid fields of the request. */
  readonly violations: readonly Violation[];
  /** Delay before a retry that the server requests; undefined if there is none. */
  readonly retryAfterMs: number | undefined;

  constructor(
    readonly code: Code,
    /** Message of the server: the cause, the expected value, and a remedy. */
    readonly details: string,
    more: Details = {},
  ) {
    super(text(code, details, more), { cause: more.cause });
    this.kind = more.kind;
    this.reason = more.reason ?? "";
    this.domain = more.domain ?? "";
    this.metadata = more.metadata ?? {};
    this.violations = more.violations ?? [];
    this.retryAfterMs = more.retryAfterMs;
  }
}

/** Returns the code, the message, and the details that the message does not contain. */
function text(code: Code, details: string, more: Details): string {
  const parts = [`${code}: ${details}`];
  for (const { field, description } of more.violations ?? []) {
    // The server often uses its only violation as the message.
    if (!details.includes(description)) parts.push(`${field}: ${description}`);
  }
  const id = more.metadata?.request_id;
  if (code === "INTERNAL" && id && !details.includes(id)) {
    parts.push(`for the cause, search the server's log for request id ${id}`);
  }
  for (const key of ["models", "operations"]) {
    const have = more.metadata?.[key];
    if (have && !details.includes(have)) parts.push(`available: ${have}`);
  }
  if (more.retryAfterMs) parts.push(`retry after ${more.retryAfterMs} ms`);
  return parts.join("; ");
}

/** Returns the error for an argument that is invalid before anything is sent. */
export function invalid(field: string, description: string): LatentserveError {
  return new LatentserveError("INVALID_ARGUMENT", `${field}: ${description}`, {
    violations: [{ field, description }],
  });
}

export function badReply(message: string): LatentserveError {
  return new LatentserveError(
    "INTERNAL",
    `${message}; the versions of the server and this client differ: update the older one`,
    { kind: "bad-reply" },
  );
}

/**
 * Converts an error of grpc-js, including errors of calls made with the generated stubs; rethrows
 * other errors. `defaultMessage` replaces an empty message of the server; `cause` is the reason of
 * a cancellation.
 */
export function fromGrpc(
  error: unknown,
  defaultMessage = "",
  cause: unknown = error,
): LatentserveError {
  if (error instanceof LatentserveError) return error;
  if (!isServiceError(error)) throw error;
  const code = ((status[error.code] as string | undefined) ?? "UNKNOWN") as Code;
  const message = error.details || defaultMessage || "the server sent no message";
  const more: Details = { ...readDetails(error), cause };
  more.kind = kindOf(code, more.reason, message);
  return new LatentserveError(code, message, more);
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

function readDetails(error: ServiceError): Details {
  const found: Details = {};
  const details = readStatus(error.metadata);
  // A proxy rewrote the status, so the details belong to another one.
  if (details?.code !== error.code) return found;
  const violations: Violation[] = [];
  for (const { typeUrl, value } of details.details) {
    switch (typeUrl.slice(typeUrl.lastIndexOf("/") + 1)) {
      case "google.rpc.ErrorInfo": {
        const { reason, domain, metadata } = ErrorInfo.decode(value);
        Object.assign(found, { reason, domain, metadata });
        break;
      }
      case "google.rpc.BadRequest":
        for (const { field, description } of BadRequest.decode(value).fieldViolations) {
          violations.push({ field, description });
        }
        break;
      case "google.rpc.RetryInfo": {
        const delay = RetryInfo.decode(value).retryDelay;
        if (delay) found.retryAfterMs = Number(delay.seconds) * 1000 + delay.nanos / 1e6;
        break;
      }
    }
  }
  return { ...found, violations };
}

function readStatus(trailers: Metadata): Status | undefined {
  const bytes = trailers.get("grpc-status-details-bin")[0];
  if (!Buffer.isBuffer(bytes)) return undefined;
  try {
    return Status.decode(bytes);
  } catch {
    return undefined;
  }
}

function kindOf(code: Code, reason: string | undefined, message: string): ErrorKind | undefined {
  switch (reason) {
    case "QUEUE_FULL":
      return "queue-full";
    case "OPERATION_NOT_SUPPORTED":
      return "operation-not-supported";
    case "MODEL_NOT_FOUND":
      return "model-not-found";
  }
  // This error comes from gRPC itself, which sends a message without details.
  const tooLarge = code === "RESOURCE_EXHAUSTED" && /larger than/i.test(message);
  return tooLarge ? "message-too-large" : undefined;
}
