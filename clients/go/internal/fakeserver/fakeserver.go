// Package fakeserver is a server for tests, on a real connection, whose answers a test chooses.
package fakeserver

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// Server answers what its functions say; a call without one fails with UNIMPLEMENTED.
type Server struct {
	pb.UnimplementedGenerativeServiceServer
	pb.UnimplementedModelServiceServer
	grpc_health_v1.UnimplementedHealthServer

	OnEncode       func(context.Context, *pb.EncodeRequest) (*pb.EncodeResponse, error)
	OnDecode       func(context.Context, *pb.DecodeRequest) (*pb.DecodeResponse, error)
	OnReconstruct  func(context.Context, *pb.ReconstructRequest) (*pb.ReconstructResponse, error)
	OnDenoise      func(context.Context, *pb.DenoiseRequest) (*pb.DenoiseResponse, error)
	OnSample       func(context.Context, *pb.SampleRequest) (*pb.SampleResponse, error)
	OnSampleStream func(*pb.SampleStreamRequest, grpc.ServerStreamingServer[pb.SampleStreamResponse]) error
	OnListModels   func(context.Context, *pb.ListModelsRequest) (*pb.ListModelsResponse, error)
	OnGetModel     func(context.Context, *pb.GetModelRequest) (*pb.GetModelResponse, error)
	OnReloadModels func(context.Context, *pb.ReloadModelsRequest) (*pb.ReloadModelsResponse, error)
	OnCheck        func(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error)
	OnWatch        func(*grpc_health_v1.HealthCheckRequest, grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error
}

// Start serves until the test ends, and returns the address.
func (s *Server) Start(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append([]grpc.ServerOption{grpc.MaxRecvMsgSize(64 << 20)}, options...)...)
	pb.RegisterGenerativeServiceServer(server, s)
	pb.RegisterModelServiceServer(server, s)
	grpc_health_v1.RegisterHealthServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// Failure returns an error with details, as the server makes them.
func Failure(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	failure, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return failure.Err()
}

// Metadata returns the first value of a call's metadata, "" where there is none.
func Metadata(ctx context.Context, key string) string {
	if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
		return values[0]
	}
	return ""
}

func answer[Request, Reply any](on func(context.Context, Request) (Reply, error), ctx context.Context, request Request) (Reply, error) {
	if on == nil {
		var none Reply
		return none, status.Error(codes.Unimplemented, "the test expects no such call")
	}
	return on(ctx, request)
}

func stream[Request, Reply any](on func(Request, grpc.ServerStreamingServer[Reply]) error, request Request, replies grpc.ServerStreamingServer[Reply]) error {
	if on == nil {
		return status.Error(codes.Unimplemented, "the test expects no such call")
	}
	return on(request, replies)
}

// Encode answers what OnEncode says.
func (s *Server) Encode(ctx context.Context, r *pb.EncodeRequest) (*pb.EncodeResponse, error) {
	return answer(s.OnEncode, ctx, r)
}

// Decode answers what OnDecode says.
func (s *Server) Decode(ctx context.Context, r *pb.DecodeRequest) (*pb.DecodeResponse, error) {
	return answer(s.OnDecode, ctx, r)
}

// Reconstruct answers what OnReconstruct says.
func (s *Server) Reconstruct(ctx context.Context, r *pb.ReconstructRequest) (*pb.ReconstructResponse, error) {
	return answer(s.OnReconstruct, ctx, r)
}

// Denoise answers what OnDenoise says.
func (s *Server) Denoise(ctx context.Context, r *pb.DenoiseRequest) (*pb.DenoiseResponse, error) {
	return answer(s.OnDenoise, ctx, r)
}

// Sample answers what OnSample says.
func (s *Server) Sample(ctx context.Context, r *pb.SampleRequest) (*pb.SampleResponse, error) {
	return answer(s.OnSample, ctx, r)
}

// SampleStream answers what OnSampleStream says.
func (s *Server) SampleStream(r *pb.SampleStreamRequest, replies grpc.ServerStreamingServer[pb.SampleStreamResponse]) error {
	return stream(s.OnSampleStream, r, replies)
}

// ListModels answers what OnListModels says.
func (s *Server) ListModels(ctx context.Context, r *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
	return answer(s.OnListModels, ctx, r)
}

// GetModel answers what OnGetModel says.
func (s *Server) GetModel(ctx context.Context, r *pb.GetModelRequest) (*pb.GetModelResponse, error) {
	return answer(s.OnGetModel, ctx, r)
}

// ReloadModels answers what OnReloadModels says.
func (s *Server) ReloadModels(ctx context.Context, r *pb.ReloadModelsRequest) (*pb.ReloadModelsResponse, error) {
	return answer(s.OnReloadModels, ctx, r)
}

// Check answers what OnCheck says.
func (s *Server) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return answer(s.OnCheck, ctx, r)
}

// Watch answers what OnWatch says.
func (s *Server) Watch(r *grpc_health_v1.HealthCheckRequest, replies grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	return stream(s.OnWatch, r, replies)
}
