package latentserve

import (
	"errors"
	"math"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

func TestTensorsOnTheWireAreLittleEndian(t *testing.T) {
	for _, test := range []struct {
		tensor Tensor
		want   *pb.Tensor
	}{
		{Tensor{Shape: []int{1, 2}, Float32: []float32{1, -2}}, &pb.Tensor{
			DataType: pb.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1, 2}, Data: []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}}},
		{Tensor{Shape: []int{2, 1}, Float16: []uint16{0x3c00, 0xc000}}, &pb.Tensor{
			DataType: pb.DataType_DATA_TYPE_FLOAT16, Shape: []int64{2, 1}, Data: []byte{0, 0x3c, 0, 0xc0}}},
		{Tensor{Shape: []int{1, 2}, Uint8: []uint8{7, 255}}, &pb.Tensor{
			DataType: pb.DataType_DATA_TYPE_UINT8, Shape: []int64{1, 2}, Data: []byte{7, 255}}},
	} {
		got, err := test.tensor.toProto("x", 2)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, test.want) {
			t.Errorf("got %v, want %v", got, test.want)
		}
		back, err := tensorFrom(got, 2)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(back.Shape, test.tensor.Shape) || !slices.Equal(back.Floats(), test.tensor.Floats()) {
			t.Errorf("got %v back, want %v", back, test.tensor)
		}
	}
}

func TestInvalidTensorsAreRefused(t *testing.T) {
	for name, tensor := range map[string]Tensor{
		"no values":      {Shape: []int{1, 1}},
		"two slices":     {Shape: []int{1, 1}, Float32: []float32{1}, Uint8: []uint8{1}},
		"rank":           {Shape: []int{1}, Float32: []float32{1}},
		"length":         {Shape: []int{1, 2}, Float32: []float32{1}},
		"an empty batch": {Shape: []int{0, 2}, Float32: []float32{}},
		"negative":       {Shape: []int{-1, -1}, Float32: []float32{1}},
		"overflow":       {Shape: []int{math.MaxInt, 2}, Float32: []float32{1}},
	} {
		_, err := tensor.toProto("latents", 2)
		failure, ok := errors.AsType[*Error](err)
		if !ok || failure.Code != codes.InvalidArgument || len(failure.Violations) != 1 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestInvalidTensorsOfReplies(t *testing.T) {
	for name, message := range map[string]*pb.Tensor{
		"none":     nil,
		"type":     {DataType: 77, Shape: []int64{1, 1}, Data: []byte{1}},
		"rank":     {DataType: pb.DataType_DATA_TYPE_UINT8, Shape: []int64{1}, Data: []byte{1}},
		"negative": {DataType: pb.DataType_DATA_TYPE_UINT8, Shape: []int64{-1, -1}, Data: []byte{1}},
		"length":   {DataType: pb.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1, 1}, Data: []byte{1, 2, 3, 4, 5}},
		"more":     {DataType: pb.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1, 1}, Data: make([]byte, 8)},
		"overflow": {DataType: pb.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1 << 62, 4}},
	} {
		if _, err := tensorFrom(message, 2); !errors.Is(err, ErrBadReply) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestFloat16OfAllBits(t *testing.T) {
	for bits := range 1 << 16 {
		got := float64(float16(uint16(bits)))
		exponent, fraction := bits>>10&0x1f, float64(bits&0x3ff)
		var want float64
		switch exponent {
		case 0:
			want = math.Ldexp(fraction/1024, -14)
		case 0x1f:
			want = math.Inf(1)
			if fraction != 0 {
				want = math.NaN()
			}
		default:
			want = math.Ldexp(1+fraction/1024, exponent-15)
		}
		if bits&0x8000 != 0 {
			want = -want
		}
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Fatalf("%#04x: got %v, want %v", bits, got, want)
		}
	}
}

func TestBytesRoundHalfToEvenAndClamp(t *testing.T) {
	tensor := Tensor{Float32: []float32{-1, 0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 1, 2}}
	if got, want := tensor.Bytes(), []uint8{0, 0, 0, 2, 2, 255, 255}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := (Tensor{Float16: []uint16{0x3800}}).Bytes(), []uint8{128}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRows(t *testing.T) {
	latents := Latents([]float32{1, 2, 3, 4, 5, 6}, 2)
	if got := latents.Row(1); !slices.Equal(got, []float32{4, 5, 6}) {
		t.Errorf("got %v", got)
	}
}
