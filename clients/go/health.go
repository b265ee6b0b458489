package latentserve

import (
	"context"
	"fmt"
	"iter"

	"google.golang.org/grpc/health/grpc_health_v1"
)

// HealthStatus is the health status of the server, a service or a model.
type HealthStatus string

// Health statuses. Only WatchHealth returns HealthServiceUnknown.
const (
	HealthServing        HealthStatus = "SERVING"
	HealthNotServing     HealthStatus = "NOT_SERVING"
	HealthServiceUnknown HealthStatus = "SERVICE_UNKNOWN"
)

// Health returns the health of the server (""), or of a service or model by name. The call is never
// retried. It returns an [Error] with NOT_FOUND if the server does not know the name.
func (c *Client) Health(ctx context.Context, service string) (HealthStatus, error) {
	ctx, cancel := bounded(ctx, c.timeout)
	defer cancel()
	reply, err := c.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}, c.options...)
	if err != nil {
		return "", fromError(err, fmt.Sprintf("unknown service or model %q", service))
	}
	return healthFrom(reply)
}

// WatchHealth yields the current health and every change, until the loop exits or the context ends.
// If the stream ends for any reason, the last item is an error.
func (c *Client) WatchHealth(ctx context.Context, service string) iter.Seq2[HealthStatus, error] {
	return func(yield func(HealthStatus, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}, c.options...)
		if err != nil {
			yield("", FromError(err))
			return
		}
		receive(stream.Recv, healthFrom, yield)
	}
}

func healthFrom(reply *grpc_health_v1.HealthCheckResponse) (HealthStatus, error) {
	return HealthStatus(reply.GetStatus().String()), nil
}
