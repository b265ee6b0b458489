import { ChannelCredentials, type ChannelOptions, credentials } from "@grpc/grpc-js";

/** Attempts of one call, the first one included. */
const MAX_ATTEMPTS = 4;

const LOOPBACK = ["localhost:", "127.", "[::1]:", "unix:"];

/** PEM text or bytes, not paths. */
export interface TlsOptions {
  /** The authority that signed the server's certificate; absent: those that Node trusts. */
  readonly ca?: string | Uint8Array;
  /** This client's own certificate and key, where the server asks for one. */
  readonly cert?: string | Uint8Array;
  readonly key?: string | Uint8Array;
}

/** Returns the credentials of a connection; throws a TypeError for a half of a key pair. */
export function channelCredentials(tls: boolean | TlsOptions | undefined): ChannelCredentials {
  if (!tls) return credentials.createInsecure();
  const { ca, cert, key } = tls === true ? {} : tls;
  if ((cert === undefined) !== (key === undefined)) {
    throw new TypeError("tls.cert and tls.key belong together; one of them is missing");
  }
  return credentials.createSsl(pem(ca), pem(key), pem(cert));
}

function pem(text: string | Uint8Array | undefined): Buffer | null {
  return text === undefined ? null : Buffer.from(text as Uint8Array);
}

/**
 * Returns how the channel to a server is set up: sizes, keepalive, retries, load balancing. They
 * are those of every latentserve client.
 */
export function channelOptions(address: string, maxMessageBytes: number): ChannelOptions {
  const options: ChannelOptions = {
    // gRPC would refuse replies above 4 MiB: some 1,300 MNIST images.
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
    // gRPC would not try a request above 1 MiB again.
    "grpc.per_rpc_retry_buffer_size": maxMessageBytes,
    "grpc.retry_buffer_size": 4 * maxMessageBytes,
    // Notice a dead peer within 40 s while a call is open; idle channels stay silent.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 0,
    // Try a server that just started again soon, not after a second.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 10_000,
    // One connection of each client, not one of the whole process: closing it closes it.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.service_config": JSON.stringify(serviceConfig(address)),
  };
  if (LOOPBACK.some((start) => address.startsWith(start))) {
    // A proxy set for the internet in http_proxy cannot reach this machine.
    options["grpc.enable_http_proxy"] = 0;
  }
  return options;
}

/**
 * Returns the retry and load balancing rules.
 *
 * RESOURCE_EXHAUSTED means a full queue, where the server says how long to wait by
 * `grpc-retry-pushback-ms`, but also a message that is too large, where trying again is useless:
 * hence few attempts and the throttle. CANCELLED comes from a server that was closing its port as
 * the call arrived; a call that its caller cancels is not tried again. Health checks are not
 * either: they report what is.
 */
export function serviceConfig(address: string): object {
  const method = (service: string, retryableStatusCodes: string[]) => ({
    name: [{ service }],
    retryPolicy: {
      maxAttempts: MAX_ATTEMPTS,
      initialBackoff: "0.1s",
      maxBackoff: "2s",
      backoffMultiplier: 2,
      retryableStatusCodes,
    },
  });
  return {
    // One name for several servers: use all of them.
    loadBalancingConfig: address.startsWith("dns:///") ? [{ round_robin: {} }] : [],
    methodConfig: [
      method("latentserve.v1.GenerativeService", [
        "UNAVAILABLE",
        "CANCELLED",
        "RESOURCE_EXHAUSTED",
      ]),
      method("latentserve.v1.ModelService", ["UNAVAILABLE", "CANCELLED"]),
    ],
    // No more retries once half of the tokens are gone: a server in trouble is left alone. A
    // worker that dies fails all calls in flight at once, and these must fit into the half.
    retryThrottling: { maxTokens: 200, tokenRatio: 0.1 },
  };
}
