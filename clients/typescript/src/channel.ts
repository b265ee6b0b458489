import { ChannelCredentials, type ChannelOptions, credentials } from "@grpc/grpc-js";

/** Maximum attempts of one call, including the first. */
const MAX_ATTEMPTS = 4;

/** Hosts of this machine, in lower case: the loopback interface and the unspecified address. */
const LOCAL_HOST =
  /^(?:(?:.*\.)?localhost\.?|(?:::ffff:)?127(?:\.\d{1,3}){3}|0\.0\.0\.0|::1?|(?:0+:){7}0*[01])$/;

/** TLS settings as PEM text or bytes, not paths. */
export interface TlsOptions {
  /** Authority of the server's certificate; if absent, the authorities that Node trusts. */
  readonly ca?: string | Uint8Array;
  /** Client certificate and its key, if the server requires one. */
  readonly cert?: string | Uint8Array;
  readonly key?: string | Uint8Array;
}

/** Returns the channel credentials; throws a TypeError if only one of cert and key is set. */
export function channelCredentials(tls: boolean | TlsOptions | undefined): ChannelCredentials {
  if (!tls) return credentials.createInsecure();
  const { ca, cert, key } = tls === true ? {} : tls;
  if ((cert === undefined) !== (key === undefined)) {
    throw new TypeError("tls.cert requires tls.key and vice versa; one of them is missing");
  }
  return credentials.createSsl(pem(ca), pem(key), pem(cert));
}

function pem(text: string | Uint8Array | undefined): Buffer | null {
  return text === undefined ? null : Buffer.from(text as Uint8Array);
}

/**
 * Returns the channel options: message sizes, keepalive, retries and load balancing. All
 * latentserve clients use the same values.
 */
export function channelOptions(address: string, maxMessageBytes: number): ChannelOptions {
  const options: ChannelOptions = {
    // The default of gRPC is 4 MiB: about 1,300 MNIST images.
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
    // By default, gRPC does not retry requests above 1 MiB.
    "grpc.per_rpc_retry_buffer_size": maxMessageBytes,
    "grpc.retry_buffer_size": 4 * maxMessageBytes,
    // Detect a dead peer within 40 s while a call is open; send no pings on idle channels.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 0,
    // Reconnect to a restarted server sooner than after the default of 1 s.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 10_000,
    // One connection per client instead of one per process, so that close() closes it.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.service_config": JSON.stringify(serviceConfig(address)),
  };
  if (isLocalTarget(address)) {
    // A proxy from http_proxy cannot reach this machine.
    options["grpc.enable_http_proxy"] = 0;
  }
  return options;
}

/** Returns whether a gRPC target names only this machine, in any of gRPC's forms. */
export function isLocalTarget(target: string): boolean {
  const [, scheme = "", rest = ""] = /^(\w[\w-]*):(.*)$/s.exec(target.toLowerCase()) ?? [];
  if (scheme === "unix" || scheme === "unix-abstract") return true;
  const literal = scheme === "ipv4" || scheme === "ipv6";
  // dns://AUTHORITY/NAME has an authority that does not matter.
  const text =
    literal || scheme === "dns" ? rest.slice(rest.lastIndexOf("/") + 1) : target.toLowerCase();
  const addresses = literal ? text.split(",") : [text];
  return addresses.every((address) => LOCAL_HOST.test(hostOf(address)));
}

/** Returns the host of HOST, HOST:PORT, [IPV6] or [IPV6]:PORT. */
function hostOf(address: string): string {
  const bracketed = /^\[([^\]]*)\]/.exec(address)?.[1];
  if (bracketed !== undefined) return bracketed;
  return address.split(":").length === 2 ? address.slice(0, address.indexOf(":")) : address;
}

/**
 * Returns the retry and load balancing policies.
 *
 * RESOURCE_EXHAUSTED means a full queue, for which the server sends a delay in
 * `grpc-retry-pushback-ms`, or a message that is too large, for which a retry fails again; the
 * number of attempts and the throttle bound these retries. CANCELLED comes from a server that
 * closed its port while the call arrived; a call cancelled by the client is not retried. Health
 * checks are not retried, because they report the current state.
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
    // One name may resolve to several servers: use all of them.
    loadBalancingConfig: address.startsWith("dns:///") ? [{ round_robin: {} }] : [],
    methodConfig: [
      method("latentserve.v1.GenerativeService", [
        "UNAVAILABLE",
        "CANCELLED",
        "RESOURCE_EXHAUSTED",
      ]),
      method("latentserve.v1.ModelService", ["UNAVAILABLE", "CANCELLED"]),
    ],
    // Retries stop when half of the tokens are used, to relieve a failing server. A worker that
    // crashes fails all calls in flight at once; half of the tokens must cover these.
    retryThrottling: { maxTokens: 200, tokenRatio: 0.1 },
  };
}
