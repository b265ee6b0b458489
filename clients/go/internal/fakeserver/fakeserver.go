// Package fakeserver is a fake server on a TCP connection, whose replies a test configures.
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

// Server calls the function of each RPC; an RPC without function fails with UNIMPLEMENTED.
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

// Start serves until the end of the test, and returns the address.
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

// Failure returns an error with details, as the server does.
func Failure(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	failure, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return failure.Err()
}

// Metadata returns the first value of a metadata key of the call, "" if absent.
func Metadata(ctx context.Context, key string) string {
	if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
		return values[0]
	}
	return ""
}

func serve[Request, Reply any](on func(context.Context, Request) (Reply, error), ctx context.Context, request Request) (Reply, error) {
	if on == nil {
		var none Reply
		return none, status.Error(codes.Unimplemented, "the test does not expect this call")
	}
	return on(ctx, request)
}

func stream[Request, Reply any](on func(Request, grpc.ServerStreamingServer[Reply]) error, request Request, replies grpc.ServerStreamingServer[Reply]) error {
	if on == nil {
		return status.Error(codes.Unimplemented, "the test does not expect this call")
	}
	return on(request, replies)
}

// Encode calls OnEncode.
func (s *Server) Encode(ctx context.Context, r *pb.EncodeRequest) (*pb.EncodeResponse, error) {
	return serve(s.OnEncode, ctx, r)
}

// Decode calls OnDecode.
func (s *Server) Decode(ctx context.Context, r *pb.DecodeRequest) (*pb.DecodeResponse, error) {
	return serve(s.OnDecode, ctx, r)
}

// Reconstruct calls OnReconstruct.
func (s *Server) Reconstruct(ctx context.Context, r *pb.ReconstructRequest) (*pb.ReconstructResponse, error) {
	return serve(s.OnReconstruct, ctx, r)
}

// Denoise calls OnDenoise.
func (s *Server) Denoise(ctx context.Context, r *pb.DenoiseRequest) (*pb.DenoiseResponse, error) {
	return serve(s.OnDenoise, ctx, r)
}

// Sample calls OnSample.
func (s *Server) Sample(ctx context.Context, r *pb.SampleRequest) (*pb.SampleResponse, error) {
	return serve(s.OnSample, ctx, r)
}

// SampleStream calls OnSampleStream.
func (s *Server) SampleStream(r *pb.SampleStreamRequest, replies grpc.ServerStreamingServer[pb.SampleStreamResponse]) error {
	return stream(s.OnSampleStream, r, replies)
}

// ListModels calls OnListModels.
func (s *Server) ListModels(ctx context.Context, r *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
	return serve(s.OnListModels, ctx, r)
}

// GetModel calls OnGetModel.
func (s *Server) GetModel(ctx context.Context, r *pb.GetModelRequest) (*pb.GetModelResponse, error) {
	return serve(s.OnGetModel, ctx, r)
}

// ReloadModels calls OnReloadModels.
func (s *Server) ReloadModels(ctx context.Context, r *pb.ReloadModelsRequest) (*pb.ReloadModelsResponse, error) {
	return serve(s.OnReloadModels, ctx, r)
}

// Check calls OnCheck.
func (s *Server) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return serve(s.OnCheck, ctx, r)
}

// Watch calls OnWatch.
func (s *Server) Watch(r *grpc_health_v1.HealthCheckRequest, replies grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	return stream(s.OnWatch, r, replies)
}
