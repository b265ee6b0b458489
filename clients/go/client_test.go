package latentserve_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	latentserve "github.com/latentserve/latentserve/clients/go"
	"github.com/latentserve/latentserve/clients/go/internal/fakeserver"
	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// connect starts a server and returns a client of it.
func connect(t *testing.T, server *fakeserver.Server, options ...latentserve.Option) *latentserve.Client {
	t.Helper()
	return open(t, server.Start(t), options...)
}

func open(t *testing.T, address string, options ...latentserve.Option) *latentserve.Client {
	t.Helper()
	client, err := latentserve.New(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// failureOf returns the [latentserve.Error] of an error.
func failureOf(t *testing.T, err error) *latentserve.Error {
	t.Helper()
	failure, ok := errors.AsType[*latentserve.Error](err)
	if !ok {
		t.Fatalf("got %v, want an *Error", err)
	}
	return failure
}

func onePixel(level uint8) *pb.Images {
	return &pb.Images{Form: &pb.Images_Tensor{Tensor: &pb.Tensor{
		DataType: pb.DataType_DATA_TYPE_UINT8, Shape: []int64{1, 1, 1, 1}, Data: []byte{level},
	}}}
}

var image = latentserve.Uint8Images([]uint8{7}, 1, 1, 1, 1)

func TestEncode(t *testing.T) {
	var got *pb.EncodeRequest
	client := connect(t, &fakeserver.Server{OnEncode: func(_ context.Context, r *pb.EncodeRequest) (*pb.EncodeResponse, error) {
		got = r
		latents := &pb.Tensor{DataType: pb.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1, 1}, Data: []byte{0, 0, 0x80, 0x3f}}
		return &pb.EncodeResponse{
			Latents: latents, LogVariance: latents, Seed: r.Seed,
			ServedBy: &pb.ServedBy{Name: "mnist-vae", Version: 2, Digest: "d", Provider: "p"},
			Timings:  &pb.Timings{QueueNs: 1, ComputeNs: 2, BatchRows: 3},
		}, nil
	}}, latentserve.WithModel("mnist-vae"))
	result, err := client.Encode(t.Context(), latentserve.EncodeRequest{Images: image, Seed: new(uint64(math.MaxUint64))})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetModel().GetName() != "mnist-vae" || got.GetSeed() != math.MaxUint64 || got.GetImages().GetTensor().GetData()[0] != 7 {
		t.Errorf("sent %v", got)
	}
	if !slices.Equal(result.Latents.Float32, []float32{1}) || result.LogVariance == nil || *result.Seed != math.MaxUint64 {
		t.Errorf("got %v", result)
	}
	if result.ServedBy != (latentserve.ServedBy{Name: "mnist-vae", Version: 2, Digest: "d", Provider: "p"}) {
		t.Errorf("got %v", result.ServedBy)
	}
	if result.Timings != (latentserve.Timings{Queue: 1, Compute: 2, BatchRows: 3}) {
		t.Errorf("got %v", result.Timings)
	}
}

func TestAbsentFieldsAreNotSent(t *testing.T) {
	client := connect(t, &fakeserver.Server{OnSample: func(_ context.Context, r *pb.SampleRequest) (*pb.SampleResponse, error) {
		if r.Seed != nil || r.Temperature != nil || r.GetModel().GetName() != "" {
			t.Errorf("sent %v", r)
		}
		return &pb.SampleResponse{Images: onePixel(1), Seed: 9}, nil
	}})
	result, err := client.Sample(t.Context(), latentserve.SampleRequest{Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	if result.Seed != 9 || result.Latents != nil {
		t.Errorf("got %v", result)
	}
}

func TestZeroIsSent(t *testing.T) {
	client := connect(t, &fakeserver.Server{OnSample: func(_ context.Context, r *pb.SampleRequest) (*pb.SampleResponse, error) {
		if r.Seed == nil || r.GetSeed() != 0 || r.Temperature == nil || r.GetTemperature() != 0 || r.GetModel().GetVersion() != 3 {
			t.Errorf("sent %v", r)
		}
		return &pb.SampleResponse{Images: onePixel(1)}, nil
	}})
	_, err := client.Sample(t.Context(), latentserve.SampleRequest{
		Model: "mnist-vae:3", Count: 1, Seed: new(uint64(0)), Temperature: new(float32(0)),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDecodeReconstructAndDenoise(t *testing.T) {
	client := connect(t, &fakeserver.Server{
		OnDecode: func(_ context.Context, r *pb.DecodeRequest) (*pb.DecodeResponse, error) {
			if r.GetOutputFormat() != pb.ImageFormat_IMAGE_FORMAT_PNG || r.GetLatents().GetShape()[1] != 3 {
				t.Errorf("sent %v", r)
			}
			files := &pb.EncodedImages{Files: [][]byte{{1, 2}}}
			return &pb.DecodeResponse{Images: &pb.Images{Form: &pb.Images_Encoded{Encoded: files}}}, nil
		},
		OnReconstruct: func(_ context.Context, r *pb.ReconstructRequest) (*pb.ReconstructResponse, error) {
			return &pb.ReconstructResponse{Images: r.GetImages(), SquaredError: []float32{0.5}}, nil
		},
		OnDenoise: func(_ context.Context, r *pb.DenoiseRequest) (*pb.DenoiseResponse, error) {
			return &pb.DenoiseResponse{Images: r.GetImages()}, nil
		},
	})
	decoded, err := client.Decode(t.Context(), latentserve.DecodeRequest{
		Latents: latentserve.Latents([]float32{1, 2, 3}, 1), Format: latentserve.PNG,
	})
	if err != nil {
		t.Fatal(err)
	}
	if decoded.Images.Len() != 1 || !slices.Equal(decoded.Images.Files[0], []byte{1, 2}) {
		t.Errorf("got %v", decoded)
	}
	reconstructed, err := client.Reconstruct(t.Context(), latentserve.ReconstructRequest{Images: image})
	if err != nil {
		t.Fatal(err)
	}
	if reconstructed.SquaredError[0] != 0.5 || reconstructed.Images.Pixels.Uint8[0] != 7 {
		t.Errorf("got %v", reconstructed)
	}
	denoised, err := client.Denoise(t.Context(), latentserve.DenoiseRequest{Images: image})
	if err != nil {
		t.Fatal(err)
	}
	if denoised.Images.Pixels.Uint8[0] != 7 {
		t.Errorf("got %v", denoised)
	}
}

func TestInvalidRequestsAreNotSent(t *testing.T) {
	client := connect(t, &fakeserver.Server{}) // a call that reaches it fails with UNIMPLEMENTED
	sample := func(r latentserve.SampleRequest) error {
		_, err := client.Sample(t.Context(), r)
		return err
	}
	stream := func(r latentserve.SampleRequest) (err error) {
		for _, err = range client.SampleStream(t.Context(), r) {
		}
		return err
	}
	for field, err := range map[string]error{
		"count":         sample(latentserve.SampleRequest{}),
		"offset":        sample(latentserve.SampleRequest{Count: 1, Offset: -1}),
		"temperature":   sample(latentserve.SampleRequest{Count: 1, Temperature: new(float32(math.NaN()))}),
		"output_format": sample(latentserve.SampleRequest{Count: 1, Format: 9}),
		"model":         sample(latentserve.SampleRequest{Count: 1, Model: "mnist-vae:0"}),
		"chunk_rows":    stream(latentserve.SampleRequest{Count: 1, ChunkRows: -1}),
	} {
		failure := failureOf(t, err)
		if failure.Code != codes.InvalidArgument || len(failure.Violations) != 1 || failure.Violations[0].Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestModels(t *testing.T) {
	vae := &pb.Model{
		Name: "mnist-vae", Version: 2, State: pb.Model_STATE_READY, Kind: "vae",
		Image:      &pb.ImageSpec{Channels: 1, Height: 28, Width: 28},
		Latent:     &pb.LatentSpec{Dim: 20, Prior: "standard_normal", HasLogVariance: true},
		Operations: []pb.Operation{pb.Operation_OPERATION_ENCODE, 77},
		Likelihood: &pb.Likelihood{Family: "gaussian", Sigma: 0.1},
		Limits:     &pb.Limits{MaxRequestRows: 1024, MaxStreamRows: 1 << 40, MaxBatchRows: 64},
		Metrics:    []*pb.Metric{{Name: "a", Value: 1, Baseline: new(0.0)}, {Name: "b"}},
	}
	client := connect(t, &fakeserver.Server{
		OnListModels: func(context.Context, *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
			return &pb.ListModelsResponse{Models: []*pb.Model{vae, {Name: "x", State: pb.Model_STATE_REFUSED, Reason: "r"}}, DefaultModel: "mnist-vae"}, nil
		},
		OnGetModel: func(_ context.Context, r *pb.GetModelRequest) (*pb.GetModelResponse, error) {
			return &pb.GetModelResponse{Model: &pb.Model{Name: r.GetModel().GetName(), Version: r.GetModel().GetVersion()}}, nil
		},
		OnReloadModels: func(ctx context.Context, r *pb.ReloadModelsRequest) (*pb.ReloadModelsResponse, error) {
			if deadline, _ := ctx.Deadline(); time.Until(deadline) < time.Minute {
				t.Errorf("the deadline is %v", deadline)
			}
			return &pb.ReloadModelsResponse{Outcomes: []*pb.ReloadOutcome{{Name: r.GetNames()[0], Version: 1, Action: pb.ReloadOutcome_ACTION_LOADED}}}, nil
		},
	})
	list, err := client.Models(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := list.Models[0]
	if list.Default != "mnist-vae" || got.Ref() != "mnist-vae:2" || got.State != "ready" || got.Latent.Dim != 20 ||
		!slices.Equal(got.Operations, []string{"encode", "77"}) || got.Likelihood.Sigma != 0.1 ||
		got.Limits.MaxStreamRows != 1<<40 || *got.Metrics[0].Baseline != 0 || got.Metrics[1].Baseline != nil {
		t.Errorf("got %+v", got)
	}
	if refused := list.Models[1]; refused.State != "refused" || refused.Likelihood != nil {
		t.Errorf("got %+v", refused)
	}
	one, err := client.Model(t.Context(), "mnist-gan:4")
	if err != nil || one.Ref() != "mnist-gan:4" {
		t.Errorf("got %v, %v", one, err)
	}
	outcomes, err := client.ReloadModels(t.Context(), "mnist-gan")
	if err != nil || outcomes[0] != (latentserve.ReloadOutcome{Name: "mnist-gan", Version: 1, Action: "loaded"}) {
		t.Errorf("got %v, %v", outcomes, err)
	}
}

func TestHealth(t *testing.T) {
	client := connect(t, &fakeserver.Server{
		OnCheck: func(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
			if r.GetService() != "" {
				return nil, status.Error(codes.NotFound, "")
			}
			return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
		},
		OnWatch: func(_ *grpc_health_v1.HealthCheckRequest, replies grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
			for _, serving := range []grpc_health_v1.HealthCheckResponse_ServingStatus{1, 2} {
				if err := replies.Send(&grpc_health_v1.HealthCheckResponse{Status: serving}); err != nil {
					return err
				}
			}
			<-replies.Context().Done()
			return nil
		},
	})
	if got, err := client.Health(t.Context(), ""); err != nil || got != latentserve.HealthServing {
		t.Errorf("got %v, %v", got, err)
	}
	_, err := client.Health(t.Context(), "x")
	if failure := failureOf(t, err); failure.Code != codes.NotFound || failure.Message != `unknown service or model "x"` {
		t.Errorf("got %v", err)
	}
	var seen []latentserve.HealthStatus
	for got, err := range client.WatchHealth(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, got); len(seen) == 2 {
			break
		}
	}
	if want := []latentserve.HealthStatus{latentserve.HealthServing, latentserve.HealthNotServing}; !slices.Equal(seen, want) {
		t.Errorf("got %v", seen)
	}
}

func TestErrorsKeepTheirDetails(t *testing.T) {
	client := connect(t, &fakeserver.Server{OnReconstruct: func(context.Context, *pb.ReconstructRequest) (*pb.ReconstructResponse, error) {
		return nil, fakeserver.Failure(codes.InvalidArgument, "two things are wrong",
			&errdetails.ErrorInfo{Reason: "INVALID_REQUEST", Domain: "latentserve", Metadata: map[string]string{"request_id": "abc"}},
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
				{Field: "images.tensor.shape", Description: "too tall"}, {Field: "model.version", Description: "negative"}}},
			&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
		)
	}})
	_, err := client.Reconstruct(t.Context(), latentserve.ReconstructRequest{Images: image})
	failure := failureOf(t, err)
	if failure.Code != codes.InvalidArgument || failure.Reason != "INVALID_REQUEST" || failure.Domain != "latentserve" ||
		failure.Metadata["request_id"] != "abc" || failure.RetryAfter != 1500*time.Millisecond {
		t.Errorf("got %+v", failure)
	}
	want := []latentserve.Violation{{Field: "images.tensor.shape", Description: "too tall"}, {Field: "model.version", Description: "negative"}}
	if !slices.Equal(failure.Violations, want) {
		t.Errorf("got %v", failure.Violations)
	}
	text := "latentserve: INVALID_ARGUMENT: two things are wrong; images.tensor.shape: too tall; model.version: negative; retry after 1.5s"
	if err.Error() != text {
		t.Errorf("got %q", err)
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("grpc-go sees %v", status.Code(err))
	}
}

func TestKindsOfErrors(t *testing.T) {
	for reason, want := range map[string]error{
		"OPERATION_NOT_SUPPORTED": latentserve.ErrOperationNotSupported,
		"MODEL_NOT_FOUND":         latentserve.ErrModelNotFound,
		"QUEUE_FULL":              latentserve.ErrQueueFull,
	} {
		err := error(latentserve.FromError(fakeserver.Failure(codes.FailedPrecondition, "m", &errdetails.ErrorInfo{Reason: reason})))
		for _, kind := range []error{latentserve.ErrOperationNotSupported, latentserve.ErrModelNotFound, latentserve.ErrQueueFull, latentserve.ErrMessageTooLarge} {
			if errors.Is(err, kind) != (kind == want) {
				t.Errorf("%s is %v: %v", reason, kind, errors.Is(err, kind))
			}
		}
	}
	if latentserve.FromError(nil) != nil {
		t.Error("nil became an error")
	}
	if failure := latentserve.FromError(context.DeadlineExceeded); failure.Code != codes.DeadlineExceeded {
		t.Errorf("got %v", failure)
	}
}

func TestLargeMessages(t *testing.T) {
	server := &fakeserver.Server{OnReconstruct: func(_ context.Context, r *pb.ReconstructRequest) (*pb.ReconstructResponse, error) {
		return &pb.ReconstructResponse{Images: r.GetImages()}, nil
	}}
	address := server.Start(t)
	large := latentserve.Uint8Images(make([]uint8, 5<<20), 5, 1, 1024, 1024)
	result, err := open(t, address).Reconstruct(t.Context(), latentserve.ReconstructRequest{Images: large})
	if err != nil || result.Images.Len() != 5 {
		t.Errorf("got %v, %v", result, err)
	}
	small := open(t, address, latentserve.WithMaxMessageBytes(1<<20))
	if _, err := small.Reconstruct(t.Context(), latentserve.ReconstructRequest{Images: large}); !errors.Is(err, latentserve.ErrMessageTooLarge) {
		t.Errorf("got %v", err)
	}
}
