package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	latentserve "github.com/latentserve/latentserve/clients/go"
	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// throughStub executes a call that bypasses the client, to send a request that the client refuses or
// to check trailers. It uses the generated stub, or raw bytes as the request.
func (c *caller) throughStub(ctx context.Context, conn *grpc.ClientConn, test *testCase) (*callResult, error) {
	options := []grpc.CallOption{grpc.Trailer(&c.trailers)}
	var request any
	var err error
	if test.Through == "bytes" {
		request, err = c.folder.bytes(test.Body)
		options = append(options, grpc.ForceCodecV2(requestAsBytes{}))
	} else {
		request, err = c.message(test)
	}
	if err != nil {
		return nil, err
	}
	method := "/" + test.RPC
	if test.method() == "SampleStream" {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, options...)
		if err != nil {
			return nil, latentserve.FromError(err)
		}
		parts, err := receive(stream, request)
		c.trailers = stream.Trailer()
		return &callResult{parts: parts}, err
	}
	reply, known := replies[test.method()]
	if !known {
		// This includes unknown methods.
		reply = func() proto.Message { return &pb.SampleResponse{} }
	}
	message := reply()
	if err := conn.Invoke(ctx, method, request, message, options...); err != nil {
		return nil, latentserve.FromError(err)
	}
	if sampled, ok := message.(*pb.SampleResponse); ok {
		converted, err := partOf(sampled)
		return &callResult{parts: []part{converted}}, err
	}
	return nil, fmt.Errorf("%s succeeded, but this runner checks only its errors", test.RPC)
}

var replies = map[string]func() proto.Message{
	"Encode":       func() proto.Message { return &pb.EncodeResponse{} },
	"Decode":       func() proto.Message { return &pb.DecodeResponse{} },
	"Reconstruct":  func() proto.Message { return &pb.ReconstructResponse{} },
	"Denoise":      func() proto.Message { return &pb.DenoiseResponse{} },
	"Sample":       func() proto.Message { return &pb.SampleResponse{} },
	"ListModels":   func() proto.Message { return &pb.ListModelsResponse{} },
	"GetModel":     func() proto.Message { return &pb.GetModelResponse{} },
	"ReloadModels": func() proto.Message { return &pb.ReloadModelsResponse{} },
}

func receive(stream grpc.ClientStream, request any) ([]part, error) {
	if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
		return nil, latentserve.FromError(err)
	}
	if err := stream.CloseSend(); err != nil {
		return nil, latentserve.FromError(err)
	}
	var parts []part
	for {
		message := &pb.SampleStreamResponse{}
		err := stream.RecvMsg(message)
		if errors.Is(err, io.EOF) {
			return parts, nil
		}
		if err != nil {
			return nil, latentserve.FromError(err)
		}
		chunk, err := partOf(message)
		if err != nil {
			return nil, err
		}
		chunk.offset = message.GetOffset()
		parts = append(parts, chunk)
	}
}

// message returns the request message of a case, valid or not.
func (c *caller) message(test *testCase) (proto.Message, error) {
	r := test.Request
	var ref *pb.ModelRef
	if r.Model != nil {
		ref = &pb.ModelRef{Name: r.Model.Name, Version: r.Model.Version}
	}
	format, err := enum[pb.ImageFormat]("IMAGE_FORMAT_", r.OutputFormat, pb.ImageFormat_value)
	if err != nil {
		return nil, err
	}
	images, err := c.imagesMessage(test)
	if err != nil {
		return nil, err
	}
	latents, err := c.tensorMessage(r.Latents)
	if err != nil {
		return nil, err
	}
	temperature := (*float32)(r.Temperature)
	switch test.method() {
	case "Encode":
		return &pb.EncodeRequest{Model: ref, Images: images, Seed: r.Seed}, nil
	case "Decode":
		return &pb.DecodeRequest{Model: ref, Latents: latents, OutputFormat: format}, nil
	case "Reconstruct":
		return &pb.ReconstructRequest{Model: ref, Images: images, OutputFormat: format}, nil
	case "Denoise":
		return &pb.DenoiseRequest{Model: ref, Images: images, OutputFormat: format}, nil
	case "Sample":
		return &pb.SampleRequest{
			Model: ref, Count: int32(r.Count), Seed: r.Seed, Offset: r.Offset, Temperature: temperature,
			OutputFormat: format, IncludeLatents: r.IncludeLatents,
		}, nil
	case "SampleStream":
		return &pb.SampleStreamRequest{
			Model: ref, Count: r.Count, Seed: r.Seed, Offset: r.Offset, Temperature: temperature,
			OutputFormat: format, IncludeLatents: r.IncludeLatents, ChunkRows: r.ChunkRows,
		}, nil
	case "ListModels":
		return &pb.ListModelsRequest{}, nil
	case "GetModel":
		return &pb.GetModelRequest{Model: ref}, nil
	case "ReloadModels":
		return &pb.ReloadModelsRequest{Names: r.Names}, nil
	default:
		return nil, fmt.Errorf("this runner has no request message for %s", test.RPC)
	}
}

func (c *caller) imagesMessage(test *testCase) (*pb.Images, error) {
	given := test.Request.Images
	if given == nil {
		return nil, nil
	}
	if given.Tensor != nil {
		tensor, err := c.tensorMessage(given.Tensor)
		return &pb.Images{Form: &pb.Images_Tensor{Tensor: tensor}}, err
	}
	encoded := &pb.EncodedImages{}
	for _, path := range given.Encoded {
		file, err := c.folder.file(path)
		if err != nil {
			return nil, err
		}
		encoded.Files = append(encoded.Files, file)
	}
	return &pb.Images{Form: &pb.Images_Encoded{Encoded: encoded}}, nil
}

func (c *caller) tensorMessage(given *caseTensor) (*pb.Tensor, error) {
	if given == nil {
		return nil, nil
	}
	dtype, err := enum[pb.DataType]("DATA_TYPE_", given.DType, pb.DataType_value)
	if err != nil {
		return nil, err
	}
	data, err := c.folder.tensorBytes(given)
	return &pb.Tensor{DataType: dtype, Shape: given.Shape, Data: data}, err
}

// enum returns an enum value by its name without prefix, or an unknown value by its number.
func enum[E ~int32](prefix, name string, values map[string]int32) (E, error) {
	if name == "" {
		return 0, nil
	}
	if number, err := strconv.ParseInt(name, 10, 32); err == nil {
		return E(number), nil
	}
	number, ok := values[prefix+name]
	if !ok {
		return 0, fmt.Errorf("unknown enum value %s%s", prefix, name)
	}
	return E(number), nil
}

type sampleReply interface {
	GetImages() *pb.Images
	GetLatents() *pb.Tensor
	GetSeed() uint64
	GetServedBy() *pb.ServedBy
	GetTimings() *pb.Timings
}

// partOf converts a reply of Sample or SampleStream.
func partOf(reply sampleReply) (part, error) {
	by, timings := reply.GetServedBy(), reply.GetTimings()
	result := part{
		seed:     new(reply.GetSeed()),
		servedBy: latentserve.ServedBy{Name: by.GetName(), Version: int(by.GetVersion()), Digest: by.GetDigest(), Provider: by.GetProvider()},
		timings: latentserve.Timings{
			Queue: time.Duration(timings.GetQueueNs()), Compute: time.Duration(timings.GetComputeNs()), BatchRows: int(timings.GetBatchRows()),
		},
		images: &latentserve.Images{Files: reply.GetImages().GetEncoded().GetFiles()},
	}
	if message := reply.GetImages().GetTensor(); message != nil {
		pixels, err := floats(message)
		if err != nil {
			return part{}, err
		}
		result.images = &latentserve.Images{Pixels: &pixels}
	}
	if message := reply.GetLatents(); message != nil {
		latents, err := floats(message)
		if err != nil {
			return part{}, err
		}
		result.latents = &latents
	}
	return result, nil
}

func floats(message *pb.Tensor) (latentserve.Tensor, error) {
	if message.GetDataType() != pb.DataType_DATA_TYPE_FLOAT32 {
		return latentserve.Tensor{}, fmt.Errorf("the tensor has data type %v, expected FLOAT32", message.GetDataType())
	}
	return decodeTensor("FLOAT32", message.GetShape(), message.GetData())
}

// requestAsBytes is a codec that sends raw bytes and parses replies.
type requestAsBytes struct{}

func (requestAsBytes) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (requestAsBytes) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

func (requestAsBytes) Name() string { return "proto" }
