package latentserve

import (
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// maxAttempts of one call, including the first.
const maxAttempts = 4

// channelOptions returns the dial options of a channel: message sizes, keepalive, retries and load
// balancing. All latentserve clients use the same values.
func channelOptions(address string, maxMessageBytes int) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(
			// The default of gRPC is 4 MiB: about 1,300 MNIST images.
			grpc.MaxCallRecvMsgSize(maxMessageBytes),
			grpc.MaxCallSendMsgSize(maxMessageBytes),
			// By default, gRPC does not retry requests above 256 KiB: about 80 MNIST images.
			grpc.MaxRetryRPCBufferSize(maxMessageBytes),
		),
		// Detect a dead peer within 40 s while a call is open; send no pings on idle channels.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// Reconnect to a restarted server sooner than after the default of 1 s.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second,
			},
			MinConnectTimeout: 20 * time.Second,
		}),
		grpc.WithDefaultServiceConfig(serviceConfig(address)),
	}
}

type object = map[string]any

// serviceConfig returns the retry and load balancing policies.
//
// RESOURCE_EXHAUSTED means a full queue, for which the server sends a delay in
// `grpc-retry-pushback-ms`, or a message that is too large, for which a retry fails again; the
// number of attempts and the throttle bound these retries. CANCELLED comes from a server that closed
// its port while the call arrived; a call cancelled by the client is not retried. Health checks are
// not retried, because they report the current state.
func serviceConfig(address string) string {
	method := func(service string, retryable ...string) object {
		return object{
			"name": []object{{"service": service}},
			"retryPolicy": object{
				"maxAttempts": maxAttempts, "initialBackoff": "0.1s", "maxBackoff": "2s",
				"backoffMultiplier": 2, "retryableStatusCodes": retryable,
			},
		}
	}
	config := object{
		"methodConfig": []object{
			method("latentserve.v1.GenerativeService", "UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"),
			method("latentserve.v1.ModelService", "UNAVAILABLE", "CANCELLED"),
		},
		// Retries stop when half of the tokens are used, to relieve a failing server. A worker that
		// crashes fails all calls in flight at once; half of the tokens must cover these.
		"retryThrottling": object{"maxTokens": 200, "tokenRatio": 0.1},
	}
	if strings.HasPrefix(address, "dns:///") {
		// One name may resolve to several servers: use all of them.
		config["loadBalancingConfig"] = []object{{"round_robin": object{}}}
	}
	text, err := json.Marshal(config)
	if err != nil {
		panic(err) // it contains only JSON values
	}
	return string(text)
}
