package latentserve

import (
	"context"
	"fmt"
	"iter"

	"google.golang.org/grpc/health/grpc_health_v1"
)

// HealthStatus is the health of the server, a service or a model.
type HealthStatus string

// The statuses. HealthServiceUnknown comes from WatchHealth alone.
const (
	HealthServing        HealthStatus = "SERVING"
	HealthNotServing     HealthStatus = "NOT_SERVING"
	HealthServiceUnknown HealthStatus = "SERVICE_UNKNOWN"
)

// Health returns the health of the server (""), or of a model by its name. Never tried again.
// An [Error] with NOT_FOUND for what the server does not know.
func (c *Client) Health(ctx context.Context, service string) (HealthStatus, error) {
	ctx, cancel := bounded(ctx, c.timeout)
	defer cancel()
	reply, err := c.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}, c.options...)
	if err != nil {
		return "", fromError(err, fmt.Sprintf("there is no service or model %q", service))
	}
	return healthFrom(reply)
}

// WatchHealth yields the health now and after every change, until the loop is left or the context
// ends; then with an error, as after every other end.
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
