package latentserve_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	latentserve "github.com/latentserve/latentserve/clients/go"
	"github.com/latentserve/latentserve/clients/go/internal/fakeserver"
	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// rows returns a server that streams one image per row and reports the end of the call.
func rows(over chan<- error) *fakeserver.Server {
	return &fakeserver.Server{OnSampleStream: func(r *pb.SampleStreamRequest, replies grpc.ServerStreamingServer[pb.SampleStreamResponse]) error {
		for row := r.GetOffset(); row < r.GetOffset()+r.GetCount(); row++ {
			if err := replies.Send(&pb.SampleStreamResponse{Images: onePixel(uint8(row)), Seed: r.GetSeed(), Offset: row}); err != nil {
				over <- err
				return err
			}
		}
		over <- nil
		return nil
	}}
}

func TestStreamAndResume(t *testing.T) {
	over := make(chan error, 2)
	client := connect(t, rows(over))
	request := latentserve.SampleRequest{Count: 5, Seed: new(uint64(3)), Offset: 10}
	var got []uint8
	for chunk, err := range client.SampleStream(t.Context(), request) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, chunk.Images.Pixels.Uint8[0])
		if chunk.Seed != 3 {
			t.Errorf("seed %d", chunk.Seed)
		}
		if len(got) == 2 {
			request.Offset, request.Count = chunk.NextOffset(), request.Count-len(got)
			break
		}
	}
	<-over
	for chunk, err := range client.SampleStream(t.Context(), request) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, chunk.Images.Pixels.Uint8[0])
	}
	if want := "\x0a\x0b\x0c\x0d\x0e"; string(got) != want {
		t.Errorf("got %v", got)
	}
}

func TestLeavingTheLoopCancelsTheCall(t *testing.T) {
	over := make(chan error, 1)
	client := connect(t, rows(over), latentserve.WithTimeout(time.Hour))
	for _, err := range client.SampleStream(t.Context(), latentserve.SampleRequest{Count: 1 << 40}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if err := <-over; err == nil {
		t.Error("the server sent all rows")
	}
}

func TestAFailedStreamYieldsItsError(t *testing.T) {
	client := connect(t, &fakeserver.Server{OnSampleStream: func(_ *pb.SampleStreamRequest, replies grpc.ServerStreamingServer[pb.SampleStreamResponse]) error {
		if err := replies.Send(&pb.SampleStreamResponse{Images: onePixel(1)}); err != nil {
			return err
		}
		return status.Error(codes.Unavailable, "draining")
	}})
	var chunks int
	var last error
	for _, err := range client.SampleStream(t.Context(), latentserve.SampleRequest{Count: 2}) {
		if last = err; err == nil {
			chunks++
		}
	}
	if failure := failureOf(t, last); chunks != 1 || failure.Code != codes.Unavailable {
		t.Errorf("got %d chunks, then %v", chunks, last)
	}
}

func TestAStreamWithAnInvalidReply(t *testing.T) {
	client := connect(t, &fakeserver.Server{OnSampleStream: func(_ *pb.SampleStreamRequest, replies grpc.ServerStreamingServer[pb.SampleStreamResponse]) error {
		return replies.Send(&pb.SampleStreamResponse{})
	}})
	for _, err := range client.SampleStream(t.Context(), latentserve.SampleRequest{Count: 1}) {
		if !errors.Is(err, latentserve.ErrBadReply) {
			t.Errorf("got %v", err)
		}
	}
}

// held returns a server that never replies and reports the reason for the end of the call.
func held(over chan<- error) *fakeserver.Server {
	return &fakeserver.Server{OnSample: func(ctx context.Context, _ *pb.SampleRequest) (*pb.SampleResponse, error) {
		over <- nil
		<-ctx.Done()
		over <- ctx.Err()
		return nil, ctx.Err()
	}}
}

func TestCancelling(t *testing.T) {
	over := make(chan error)
	client := connect(t, held(over))
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := client.Sample(ctx, latentserve.SampleRequest{Count: 1})
		failed <- err
	}()
	<-over // the call has arrived
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) || failureOf(t, err).Code != codes.Canceled {
		t.Errorf("got %v", err)
	}
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("the server saw %v", err)
	}
}

func TestTheTimeoutOfTheClient(t *testing.T) {
	over := make(chan error, 2)
	client := connect(t, held(over), latentserve.WithTimeout(50*time.Millisecond))
	_, err := client.Sample(t.Context(), latentserve.SampleRequest{Count: 1})
	if !errors.Is(err, context.DeadlineExceeded) || failureOf(t, err).Code != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

func TestTheDeadlineOfTheContextIsUsed(t *testing.T) {
	want := time.Now().Add(time.Hour)
	client := connect(t, &fakeserver.Server{OnSample: func(ctx context.Context, _ *pb.SampleRequest) (*pb.SampleResponse, error) {
		if got, _ := ctx.Deadline(); got.Before(want.Add(-time.Minute)) {
			t.Errorf("the deadline is %v, want %v", got, want)
		}
		return &pb.SampleResponse{Images: onePixel(1)}, nil
	}})
	ctx, cancel := context.WithDeadline(t.Context(), want)
	defer cancel()
	if _, err := client.Sample(ctx, latentserve.SampleRequest{Count: 1}); err != nil {
		t.Fatal(err)
	}
}
