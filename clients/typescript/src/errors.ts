import { type Metadata, type ServiceError, status } from "@grpc/grpc-js";

import { BadRequest, ErrorInfo, RetryInfo } from "./generated/google/rpc/error_details.js";
import { Status } from "./generated/google/rpc/status.js";

/** The name of a gRPC status code. */
export type Code = Exclude<keyof typeof status, "OK">;

/** What an error is, beyond its code. */
export type ErrorKind =
  /** Too many rows wait for the model; `retryAfterMs` says how long to wait. */
  | "queue-full"
  /** A limit of message sizes. Send fewer images, or ask for uint8 or PNG; do not try again. */
  | "message-too-large"
  /** The model lacks the operation; `metadata.operations` lists what it has. */
  | "operation-not-supported"
  /** No such model or version; `metadata.models` lists what there is. */
  | "model-not-found"
  /** The reply breaks the wire contract: server and client differ in version. */
  | "bad-reply";

/** One field of a request that is wrong. */
export interface Violation {
  /** A dotted path in the request, for example `images.tensor.shape`. */
  readonly field: string;
  /** What was sent and what is expected. */
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
 * What can go wrong in a call: by the server's answer, on the way to it, or before anything was
 * sent (then with INVALID_ARGUMENT). An aborted call is CANCELLED, with the signal's reason as
 * `cause`.
 */
export class LatentserveError extends Error {
  override readonly name = "LatentserveError";
  readonly kind: ErrorKind | undefined;
  /** The server's own name for the error, for example `QUEUE_FULL`; empty if it is not the server's. */
  readonly reason: string;
  /** `latentserve` where there is a reason. */
  readonly domain: string;
  /** Belongs to the reason; `request_id` finds the call in the server's log. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The fields of the request that are wrong. */
  readonly violations: readonly Violation[];
  /** How long the server asks to wait before another attempt; undefined: it did not say. */
  readonly retryAfterMs: number | undefined;

  constructor(
    readonly code: Code,
    /** What the server said: what was sent, what is expected, what to do. */
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

/** Returns the code, the message, and what of the details the message lacks. */
function text(code: Code, details: string, more: Details): string {
  const parts = [`${code}: ${details}`];
  for (const { field, description } of more.violations ?? []) {
    // A server often repeats its only violation as the message.
    if (!details.includes(description)) parts.push(`${field}: ${description}`);
  }
  const id = more.metadata?.request_id;
  if (code === "INTERNAL" && id && !details.includes(id)) {
    parts.push(`the server's log says why, under request id ${id}`);
  }
  for (const key of ["models", "operations"]) {
    const have = more.metadata?.[key];
    if (have && !details.includes(have)) parts.push(`there are: ${have}`);
  }
  if (more.retryAfterMs) parts.push(`try again in ${more.retryAfterMs} ms`);
  return parts.join("; ");
}

/** Returns the error for an argument that is refused before anything is sent. */
export function invalid(field: string, description: string): LatentserveError {
  return new LatentserveError("INVALID_ARGUMENT", `${field}: ${description}`, {
    violations: [{ field, description }],
  });
}

export function badReply(message: string): LatentserveError {
  return new LatentserveError(
    "INTERNAL",
    `${message}; the server and this client are of different versions: update the older one`,
    { kind: "bad-reply" },
  );
}

/**
 * Returns the LatentserveError of an error of grpc-js, also of one that was made with the
 * generated stubs; what is no such error is thrown on. `unsaid` is the message for a method whose
 * server side sends none, `cause` what made the caller cancel.
 */
export function fromGrpc(error: unknown, unsaid = "", cause: unknown = error): LatentserveError {
  if (error instanceof LatentserveError) return error;
  if (!isServiceError(error)) throw error;
  const code = ((status[error.code] as string | undefined) ?? "UNKNOWN") as Code;
  const message = error.details || unsaid || "the server gave no reason";
  const more: Details = { ...readDetails(error), cause };
  more.kind = kindOf(code, more.reason, message);
  return new LatentserveError(code, message, more);
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

function readDetails(error: ServiceError): Details {
  const found: Details = {};
  const answer = readStatus(error.metadata);
  // A proxy on the way rewrote the status: the details no longer belong to it.
  if (answer?.code !== error.code) return found;
  const violations: Violation[] = [];
  for (const { typeUrl, value } of answer.details) {
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
  // gRPC itself answers here, with a text and nothing else.
  const tooLarge = code === "RESOURCE_EXHAUSTED" && /larger than/i.test(message);
  return tooLarge ? "message-too-large" : undefined;
}
