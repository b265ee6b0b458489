package latentserve

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// Client is a client of a latentserve server. It is safe for concurrent use; reuse it for many calls.
//
// Calls that fail with UNAVAILABLE, with CANCELLED by the server, or because the queue is full are
// retried up to three times within their deadline, by gRPC's retry policy and after the delay that
// the server requests. The errors of all methods are of type [*Error].
type Client struct {
	conn       *grpc.ClientConn
	generative pb.GenerativeServiceClient
	models     pb.ModelServiceClient
	health     grpc_health_v1.HealthClient
	model      string
	timeout    time.Duration
	options    []grpc.CallOption
}

// New returns a client of the server at "HOST:PORT", or at "dns:///NAME:PORT" to balance calls over
// all addresses of the name. It connects on the first call.
func New(address string, options ...Option) (*Client, error) {
	s := settings{timeout: DefaultTimeout, maxMessageBytes: DefaultMaxMessageBytes}
	for _, option := range options {
		option(&s)
	}
	if s.timeout <= 0 {
		return nil, fmt.Errorf("latentserve: timeout: %v; expected a positive duration", s.timeout)
	}
	if s.maxMessageBytes < 1 || s.maxMessageBytes > math.MaxInt32 {
		return nil, fmt.Errorf("latentserve: maximum message size: %d bytes; expected 1 to %d", s.maxMessageBytes, math.MaxInt32)
	}
	if _, err := modelRef(s.model); err != nil {
		return nil, err // fail here, not in the first call
	}
	security, err := s.security()
	if err != nil {
		return nil, err
	}
	dial := append(channelOptions(address, s.maxMessageBytes), security...)
	conn, err := grpc.NewClient(address, append(dial, s.dial...)...)
	if err != nil {
		return nil, fmt.Errorf("latentserve: %w", err)
	}
	return &Client{
		conn:       conn,
		generative: pb.NewGenerativeServiceClient(conn),
		models:     pb.NewModelServiceClient(conn),
		health:     grpc_health_v1.NewHealthClient(conn),
		model:      s.model,
		timeout:    s.timeout,
		options:    []grpc.CallOption{grpc.WaitForReady(s.waitForReady)},
	}, nil
}

// Close closes the connection; calls in flight are cancelled.
func (c *Client) Close() error { return c.conn.Close() }

// Conn returns the connection, for use with the generated stubs of package latentservev1.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// bounded adds a deadline to a context that has none.
func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

type method[Request, Reply any] func(context.Context, Request, ...grpc.CallOption) (Reply, error)

// call makes one unary call and converts its reply.
func call[Request, Reply, Result any](
	ctx context.Context, c *Client, timeout time.Duration,
	method method[Request, Reply], request Request, convert func(Reply) (Result, error),
) (Result, error) {
	var none Result
	ctx, cancel := bounded(ctx, timeout)
	defer cancel()
	reply, err := method(ctx, request, c.options...)
	if err != nil {
		return none, FromError(err)
	}
	return convert(reply)
}

// ref returns the model reference of a request; an empty model means the client's.
func (c *Client) ref(model string) (*pb.ModelRef, error) {
	if model == "" {
		model = c.model
	}
	return modelRef(model)
}

// modelRef parses "NAME" or "NAME:VERSION"; an empty string means the server's default model.
func modelRef(model string) (*pb.ModelRef, error) {
	name, text, found := strings.Cut(model, ":")
	if !found {
		return &pb.ModelRef{Name: name}, nil
	}
	version, err := strconv.ParseUint(text, 10, 31)
	if err != nil || version == 0 {
		return nil, invalid("model", fmt.Sprintf("%q; expected NAME or NAME:VERSION with a version of at least 1", model))
	}
	return &pb.ModelRef{Name: name, Version: int32(version)}, nil
}
