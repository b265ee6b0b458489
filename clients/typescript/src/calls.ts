import {
  type CallOptions as GrpcCallOptions,
  type ClientReadableStream,
  type ClientUnaryCall,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";

import { fromGrpc, LatentserveError } from "./errors.js";

/** A unary method of a generated stub. */
export type Unary<Request, Reply> = (
  request: Request,
  metadata: Metadata,
  options: Partial<GrpcCallOptions>,
  callback: (error: ServiceError | null, reply: Reply) => void,
) => ClientUnaryCall;

/** A server-streaming method of a generated stub. */
export type Streaming<Request, Reply> = (
  request: Request,
  metadata: Metadata,
  options: Partial<GrpcCallOptions>,
) => ClientReadableStream<Reply>;

/** Settings of one call. */
export interface CallSettings {
  readonly metadata: Metadata;
  /** Undefined means no deadline. */
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal | undefined;
  /** Message of errors for which the server sends none. */
  readonly defaultMessage?: string;
}

function grpcOptions({ timeoutMs }: CallSettings): Partial<GrpcCallOptions> {
  return timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
}

/** Executes one call; rejects with a LatentserveError. */
export function callUnary<Request, Reply>(
  method: Unary<Request, Reply>,
  request: Request,
  way: CallSettings,
): Promise<Reply> {
  const { signal } = way;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(aborted(signal));
      return;
    }
    const call = method(request, way.metadata, grpcOptions(way), (error, reply) => {
      signal?.removeEventListener("abort", cancel);
      if (error) reject(failure(error, way));
      else resolve(reply);
    });
    const cancel = () => {
      call.cancel();
    };
    signal?.addEventListener("abort", cancel, { once: true });
  });
}

/** Yields the replies of one call; leaving the loop cancels it. */
export async function* callStreaming<Request, Reply>(
  method: Streaming<Request, Reply>,
  request: Request,
  way: CallSettings,
): AsyncGenerator<Reply, void, undefined> {
  const { signal } = way;
  if (signal?.aborted) throw aborted(signal);
  const call = method(request, way.metadata, grpcOptions(way));
  const cancel = () => {
    call.cancel();
  };
  signal?.addEventListener("abort", cancel, { once: true });
  // A cancelled call emits one more error, after the iteration has ended.
  call.on("error", () => undefined);
  try {
    for await (const reply of call) yield reply as Reply;
  } catch (error) {
    throw failure(error, way);
  } finally {
    signal?.removeEventListener("abort", cancel);
    call.cancel();
  }
}

function failure(error: unknown, { signal, defaultMessage }: CallSettings): LatentserveError {
  const cancelled = signal?.aborted && (error as ServiceError).code === status.CANCELLED;
  return fromGrpc(error, defaultMessage, cancelled ? (signal.reason as unknown) : error);
}

function aborted(signal: AbortSignal): LatentserveError {
  return new LatentserveError("CANCELLED", "cancelled before the call was sent", {
    cause: signal.reason as unknown,
  });
}
