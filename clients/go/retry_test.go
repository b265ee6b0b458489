package latentserve_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	latentserve "github.com/latentserve/latentserve/clients/go"
	"github.com/latentserve/latentserve/clients/go/internal/fakeserver"
	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// refusing fails the first attempts of a call with a code, and counts attempts.
type refusing struct {
	code     codes.Code
	times    int64
	pushback string // milliseconds
	attempts atomic.Int64
}

func (r *refusing) refuse(ctx context.Context) error {
	if r.attempts.Add(1) > r.times {
		return nil
	}
	if err := grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", r.pushback)); err != nil {
		return err
	}
	return status.Error(r.code, "refused")
}

func (r *refusing) server() *fakeserver.Server {
	return &fakeserver.Server{
		OnReconstruct: func(ctx context.Context, m *pb.ReconstructRequest) (*pb.ReconstructResponse, error) {
			return &pb.ReconstructResponse{Images: m.GetImages()}, r.refuse(ctx)
		},
		OnListModels: func(ctx context.Context, _ *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
			return &pb.ListModelsResponse{}, r.refuse(ctx)
		},
		OnCheck: func(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
			return &grpc_health_v1.HealthCheckResponse{}, r.refuse(ctx)
		},
		OnSampleStream: func(_ *pb.SampleStreamRequest, replies grpc.ServerStreamingServer[pb.SampleStreamResponse]) error {
			if err := r.refuse(replies.Context()); err != nil {
				return err
			}
			return replies.Send(&pb.SampleStreamResponse{Images: onePixel(1)})
		},
	}
}

func TestRetries(t *testing.T) {
	reconstruct := func(c *latentserve.Client) error {
		_, err := c.Reconstruct(t.Context(), latentserve.ReconstructRequest{Images: image})
		return err
	}
	large := func(c *latentserve.Client) error {
		_, err := c.Reconstruct(t.Context(), latentserve.ReconstructRequest{
			Images: latentserve.Uint8Images(make([]uint8, 1<<20), 1, 1, 1024, 1024)})
		return err
	}
	models := func(c *latentserve.Client) error {
		_, err := c.Models(t.Context())
		return err
	}
	health := func(c *latentserve.Client) error {
		_, err := c.Health(t.Context(), "")
		return err
	}
	stream := func(c *latentserve.Client) (err error) {
		for _, err = range c.SampleStream(t.Context(), latentserve.SampleRequest{Count: 1}) {
		}
		return err
	}
	noRetries := latentserve.WithDialOptions(grpc.WithDisableRetry())
	for _, test := range []struct {
		name     string
		call     func(*latentserve.Client) error
		code     codes.Code
		times    int64
		pushback string
		options  []latentserve.Option
		attempts int64
		fails    bool
	}{
		{"unavailable", reconstruct, codes.Unavailable, 3, "1", nil, 4, false},
		{"fails after four attempts", reconstruct, codes.Unavailable, 9, "1", nil, 4, true},
		{"queue full", reconstruct, codes.ResourceExhausted, 1, "1", nil, 2, false},
		{"cancelled by the server", reconstruct, codes.Canceled, 1, "1", nil, 2, false},
		{"a large request", large, codes.Unavailable, 1, "1", nil, 2, false},
		{"a stream", stream, codes.Unavailable, 1, "1", nil, 2, false},
		{"negative pushback", reconstruct, codes.Unavailable, 1, "-1", nil, 1, true},
		{"invalid request", reconstruct, codes.InvalidArgument, 1, "1", nil, 1, true},
		{"an internal error", reconstruct, codes.Internal, 1, "1", nil, 1, true},
		{"models", models, codes.Unavailable, 1, "1", nil, 2, false},
		{"models, resource exhausted", models, codes.ResourceExhausted, 1, "1", nil, 1, true},
		{"health", health, codes.Unavailable, 1, "1", nil, 1, true},
		{"retries disabled", reconstruct, codes.Unavailable, 1, "1", []latentserve.Option{noRetries}, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := &refusing{code: test.code, times: test.times, pushback: test.pushback}
			err := test.call(connect(t, server.server(), test.options...))
			if test.fails != (err != nil) || err != nil && failureOf(t, err).Code != test.code {
				t.Errorf("got %v", err)
			}
			if got := server.attempts.Load(); got != test.attempts {
				t.Errorf("%d attempts, want %d", got, test.attempts)
			}
		})
	}
}

func TestWaitForReady(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	// The port is closed now.
	_, err = open(t, address, latentserve.WithDialOptions(grpc.WithDisableRetry())).Health(t.Context(), "")
	if failure := failureOf(t, err); failure.Code != codes.Unavailable || !strings.Contains(failure.Message, address) {
		t.Errorf("got %v", err)
	}
	waiting := open(t, address, latentserve.WithWaitForReady())
	conn := waiting.Conn()
	answered := make(chan error)
	go func() {
		_, err := waiting.Health(t.Context(), "")
		answered <- err
	}()
	for state := conn.GetState(); state != connectivity.TransientFailure; state = conn.GetState() {
		conn.WaitForStateChange(t.Context(), state)
	}
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip("another process took the port")
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, (&refusing{}).server())
	go func() { _ = server.Serve(again) }()
	defer server.Stop()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
