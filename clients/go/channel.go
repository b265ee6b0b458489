package latentserve

import (
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// maxAttempts of one call, the first one included.
const maxAttempts = 4

// channelOptions returns how the channel to a server is set up: sizes, keepalive, retries, load
// balancing. They are those of every latentserve client.
func channelOptions(address string, maxMessageBytes int) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(
			// gRPC would refuse replies above 4 MiB: some 1,300 MNIST images.
			grpc.MaxCallRecvMsgSize(maxMessageBytes),
			grpc.MaxCallSendMsgSize(maxMessageBytes),
			// gRPC would not try a request above 256 KiB again: some 80 MNIST images.
			grpc.MaxRetryRPCBufferSize(maxMessageBytes),
		),
		// Notice a dead peer within 40 s while a call is open; idle channels stay silent.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// Try a server that just started again soon, not after a second.
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

// serviceConfig returns the retry and load balancing rules.
//
// RESOURCE_EXHAUSTED means a full queue, where the server says how long to wait by
// `grpc-retry-pushback-ms`, but also a message that is too large, where trying again is useless:
// hence few attempts and the throttle. CANCELLED comes from a server that was closing its port as
// the call arrived; a call that its caller cancels is not tried again. Health checks are not
// either: they report what is.
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
		// No more retries once half of the tokens are gone: a server in trouble is left alone. A
		// worker that dies fails all calls in flight at once, and these must fit into the half.
		"retryThrottling": object{"maxTokens": 200, "tokenRatio": 0.1},
	}
	if strings.HasPrefix(address, "dns:///") {
		// One name for several servers: use all of them.
		config["loadBalancingConfig"] = []object{{"round_robin": object{}}}
	}
	text, err := json.Marshal(config)
	if err != nil {
		panic(err) // it holds nothing that JSON cannot
	}
	return string(text)
}
