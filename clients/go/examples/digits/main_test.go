package main

import (
	"bytes"
	"context"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	latentserve "github.com/latentserve/latentserve/clients/go"
	"github.com/latentserve/latentserve/clients/go/internal/fakeserver"
	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

func TestDigits(t *testing.T) {
	server := &fakeserver.Server{
		OnSample: func(_ context.Context, r *pb.SampleRequest) (*pb.SampleResponse, error) {
			var files [][]byte
			for range r.GetCount() {
				file, err := latentserve.Uint8Images(make([]uint8, 28*28), 1, 1, 28, 28).PNG(0)
				if err != nil {
					return nil, err
				}
				files = append(files, file)
			}
			return &pb.SampleResponse{Seed: r.GetSeed(), Images: &pb.Images{Form: &pb.Images_Encoded{Encoded: &pb.EncodedImages{Files: files}}}}, nil
		},
		OnReconstruct: func(_ context.Context, r *pb.ReconstructRequest) (*pb.ReconstructResponse, error) {
			pixels := &pb.Tensor{DataType: pb.DataType_DATA_TYPE_UINT8, Shape: []int64{1, 1, 28, 28}, Data: make([]byte, 28*28)}
			return &pb.ReconstructResponse{SquaredError: []float32{2.5}, Images: &pb.Images{Form: &pb.Images_Tensor{Tensor: pixels}}}, nil
		},
		OnEncode: func(context.Context, *pb.EncodeRequest) (*pb.EncodeResponse, error) {
			return nil, fakeserver.Failure(codes.InvalidArgument, "wrong", &errdetails.BadRequest{
				FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "images.tensor.shape", Description: "too tall"}}})
		},
	}
	folder := t.TempDir()
	var out bytes.Buffer
	if err := run(t.Context(), server.Start(t), "mnist-vae", folder, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"8 digits", "seed 7", "squared error 2.500", "images.tensor.shape: too tall"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out.String())
		}
	}
	for name, width := range map[string]int{"samples.png": 8*32 - 4, "reconstructed.png": 28} {
		file, err := os.Open(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		if got := picture.Bounds().Dx(); got != width {
			t.Errorf("%s is %d wide, want %d", name, got, width)
		}
	}
}
