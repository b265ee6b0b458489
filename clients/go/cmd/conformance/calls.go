package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	latentserve "github.com/latentserve/latentserve/clients/go"
)

// part is a reply of GenerativeService, or one message of a stream; nil for absent fields.
type part struct {
	images       *latentserve.Images
	latents      *latentserve.Tensor
	logVariance  *latentserve.Tensor
	squaredError *latentserve.Tensor
	seed         *uint64
	offset       int64
	servedBy     latentserve.ServedBy
	timings      latentserve.Timings
}

// callResult is the result of a call: parts of GenerativeService, or the value of another service.
type callResult struct {
	parts []part
	value any
}

// caller executes calls; it holds one client per server, with and without retries.
type caller struct {
	addresses map[string]string
	folder    caseFolder
	clients   map[string]*latentserve.Client
	// Trailers of the last call that did not use the client.
	trailers metadata.MD
}

func (c *caller) client(test *testCase) (*latentserve.Client, error) {
	key := fmt.Sprint(test.Server, test.Retry)
	if client, ok := c.clients[key]; ok {
		return client, nil
	}
	address, ok := c.addresses[test.Server]
	if !ok {
		return nil, fmt.Errorf("the servers file has no server %q", test.Server)
	}
	var options []latentserve.Option
	if !test.Retry {
		options = append(options, latentserve.WithDialOptions(grpc.WithDisableRetry()))
	}
	client, err := latentserve.New(address, options...)
	if err == nil {
		c.clients[key] = client
	}
	return client, err
}

// call executes the call of a case.
func (c *caller) call(ctx context.Context, test *testCase) (*callResult, error) {
	client, err := c.client(test)
	if err != nil {
		return nil, err
	}
	deadline := time.Duration(defaultDeadlineMS) * time.Millisecond
	if test.DeadlineMS > 0 {
		deadline = time.Duration(test.DeadlineMS) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(test.Metadata))
	if test.CancelAfterMS > 0 {
		timer := time.AfterFunc(time.Duration(test.CancelAfterMS)*time.Millisecond, cancel)
		defer timer.Stop()
	}
	if test.Through == "client" {
		return c.throughClient(ctx, client, test)
	}
	return c.throughStub(ctx, client.Conn(), test)
}

func (c *caller) throughClient(ctx context.Context, client *latentserve.Client, test *testCase) (*callResult, error) {
	model := ""
	if ref := test.Request.Model; ref != nil {
		model = ref.Name
		if ref.Version != 0 {
			model = fmt.Sprintf("%s:%d", ref.Name, ref.Version)
		}
	}
	switch test.method() {
	case "ListModels":
		return value(client.Models(ctx))
	case "GetModel":
		return value(client.Model(ctx, model))
	case "ReloadModels":
		return value(client.ReloadModels(ctx, test.Request.Names...))
	case "Check":
		return value(client.Health(ctx, test.Request.Service))
	case "Watch":
		for status, err := range client.WatchHealth(ctx, test.Request.Service) {
			return value(status, err)
		}
		return nil, errors.New("the health watch ended without a status")
	case "Encode", "Decode", "Reconstruct", "Denoise":
		return c.images(ctx, client, model, test)
	case "Sample", "SampleStream":
		return c.samples(ctx, client, model, test)
	default:
		return nil, fmt.Errorf("the client has no method %s", test.RPC)
	}
}

func value[T any](v T, err error) (*callResult, error) { return &callResult{value: v}, err }

var formats = map[string]latentserve.Format{
	"":        latentserve.Float32,
	"FLOAT32": latentserve.Float32,
	"FLOAT16": latentserve.Float16,
	"UINT8":   latentserve.Uint8,
	"PNG":     latentserve.PNG,
}

func (c *caller) images(ctx context.Context, client *latentserve.Client, model string, test *testCase) (*callResult, error) {
	format := formats[test.Request.OutputFormat]
	var images latentserve.Images
	if given := test.Request.Images; given != nil && given.Tensor != nil {
		tensor, err := c.folder.tensor(given.Tensor)
		if err != nil {
			return nil, err
		}
		images.Pixels = &tensor
	} else if given != nil {
		for _, path := range given.Encoded {
			file, err := c.folder.file(path)
			if err != nil {
				return nil, err
			}
			images.Files = append(images.Files, file)
		}
	}
	switch test.method() {
	case "Encode":
		r, err := client.Encode(ctx, latentserve.EncodeRequest{Model: model, Images: images, Seed: test.Request.Seed})
		if err != nil {
			return nil, err
		}
		return &callResult{parts: []part{{
			latents: &r.Latents, logVariance: r.LogVariance, seed: r.Seed, servedBy: r.ServedBy, timings: r.Timings,
		}}}, nil
	case "Decode":
		latents, err := c.folder.tensor(test.Request.Latents)
		if err != nil {
			return nil, err
		}
		return onlyImages(client.Decode(ctx, latentserve.DecodeRequest{Model: model, Latents: latents, Format: format}))
	case "Denoise":
		return onlyImages(client.Denoise(ctx, latentserve.DenoiseRequest{Model: model, Images: images, Format: format}))
	default:
		r, err := client.Reconstruct(ctx, latentserve.ReconstructRequest{Model: model, Images: images, Format: format})
		if err != nil {
			return nil, err
		}
		errors := latentserve.Tensor{Shape: []int{len(r.SquaredError)}, Float32: r.SquaredError}
		return &callResult{parts: []part{{
			images: &r.Images, squaredError: &errors, servedBy: r.ServedBy, timings: r.Timings,
		}}}, nil
	}
}

func onlyImages(r *latentserve.ImagesResult, err error) (*callResult, error) {
	if err != nil {
		return nil, err
	}
	return &callResult{parts: []part{{images: &r.Images, servedBy: r.ServedBy, timings: r.Timings}}}, nil
}

func (c *caller) samples(ctx context.Context, client *latentserve.Client, model string, test *testCase) (*callResult, error) {
	given := test.Request
	request := latentserve.SampleRequest{
		Model: model, Count: int(given.Count), Seed: given.Seed, Offset: given.Offset,
		Temperature: (*float32)(given.Temperature), Format: formats[given.OutputFormat],
		IncludeLatents: given.IncludeLatents, ChunkRows: int(given.ChunkRows),
	}
	if test.method() == "Sample" {
		r, err := client.Sample(ctx, request)
		if err != nil {
			return nil, err
		}
		return &callResult{parts: []part{samplePart(r, 0)}}, nil
	}
	if test.Stream == nil {
		parts, err := chunks(ctx, client, request, 0)
		return &callResult{parts: parts}, err
	}
	parts, err := chunks(ctx, client, request, test.Stream.CancelAfter)
	if err != nil {
		return nil, err
	}
	if test.Stream.Resume {
		for _, part := range parts {
			request.Count -= part.images.Len()
			request.Offset += int64(part.images.Len())
		}
		rest, err := chunks(ctx, client, request, 0)
		if err != nil {
			return nil, err
		}
		parts = append(parts, rest...)
	}
	return &callResult{parts: parts}, nil
}

// chunks reads a stream to its end, or cancels it after limit chunks if limit is above 0.
func chunks(ctx context.Context, client *latentserve.Client, request latentserve.SampleRequest, limit int) ([]part, error) {
	var parts []part
	for chunk, err := range client.SampleStream(ctx, request) {
		if err != nil {
			return nil, err
		}
		parts = append(parts, samplePart(&chunk.SampleResult, chunk.Offset))
		if len(parts) == limit {
			return parts, nil
		}
	}
	if limit > 0 {
		return nil, fmt.Errorf("the stream ended after %d chunks, before the cancellation", len(parts))
	}
	return parts, nil
}

func samplePart(r *latentserve.SampleResult, offset int64) part {
	return part{
		images: &r.Images, latents: r.Latents, seed: &r.Seed, offset: offset,
		servedBy: r.ServedBy, timings: r.Timings,
	}
}
