package latentserve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"

	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// maxOffset is the highest row at which a stream may start.
const maxOffset = 1 << 62

// SampleRequest is a request to sample images. The latents of image k depend only on the seed,
// Offset+k and the temperature.
type SampleRequest struct {
	Model          string   // as in EncodeRequest
	Count          int      // at least 1; for Sample, at most the model's Limits.MaxRequestRows
	Seed           *uint64  // nil lets the server choose a seed, which the reply contains
	Offset         int64    // first row of the seed's sequence of samples
	Temperature    *float32 // 0 to 10; values below 1 sample closer to the mode; nil means 1
	Format         Format
	IncludeLatents bool
	ChunkRows      int // images per chunk of SampleStream; 0 lets the server choose
}

// SampleResult holds sampled images.
type SampleResult struct {
	ImagesResult
	Seed    uint64  // the request's seed, or the one that the server chose
	Latents *Tensor // latents of the images, float32 [n, dim]; nil unless requested
}

// SampleChunk holds consecutive images of a stream.
type SampleChunk struct {
	SampleResult
	Offset int64 // row of the first image in the seed's sequence of samples
}

// NextOffset returns the [SampleRequest.Offset] that resumes after this chunk, with the same Seed.
func (c *SampleChunk) NextOffset() int64 { return c.Offset + int64(c.Images.Len()) }

// Sample samples images.
func (c *Client) Sample(ctx context.Context, request SampleRequest) (*SampleResult, error) {
	s, err := c.sampleRequest(request, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	message := &pb.SampleRequest{
		Model: s.GetModel(), Count: int32(s.GetCount()), Seed: s.Seed, Offset: s.GetOffset(),
		Temperature: s.Temperature, OutputFormat: s.GetOutputFormat(), IncludeLatents: s.GetIncludeLatents(),
	}
	return call(ctx, c, c.timeout, c.generative.Sample, message, sampled[*pb.SampleResponse])
}

// SampleStream samples many images and yields them in chunks. The images are those of Sample:
//
//	for chunk, err := range client.SampleStream(ctx, request) {
//		if err != nil {
//			return err
//		}
//		...
//	}
//
// An error is the last item. Leaving the loop cancels the call. After an error, resume with the seed
// of the last chunk and its [SampleChunk.NextOffset].
func (c *Client) SampleStream(ctx context.Context, request SampleRequest) iter.Seq2[*SampleChunk, error] {
	return func(yield func(*SampleChunk, error) bool) {
		message, err := c.sampleRequest(request, math.MaxInt)
		if err != nil {
			yield(nil, err)
			return
		}
		ctx, cancel := bounded(ctx, c.timeout)
		defer cancel()
		stream, err := c.generative.SampleStream(ctx, message, c.options...)
		if err != nil {
			yield(nil, FromError(err))
			return
		}
		receive(stream.Recv, chunk, yield)
	}
}

// receive yields the converted messages of a stream until it ends, fails or the loop exits.
func receive[Message, Item any](
	next func() (Message, error), convert func(Message) (Item, error), yield func(Item, error) bool,
) {
	var none Item
	for {
		message, err := next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			yield(none, FromError(err))
			return
		}
		item, err := convert(message)
		if !yield(item, err) || err != nil {
			return
		}
	}
}

// sampleRequest checks a request and converts it. The stream message has the fields of both RPCs.
func (c *Client) sampleRequest(request SampleRequest, maxCount int) (*pb.SampleStreamRequest, error) {
	ref, err := c.ref(request.Model)
	if err != nil {
		return nil, err
	}
	format, err := request.Format.toProto()
	if err != nil {
		return nil, err
	}
	if request.Count < 1 || request.Count > maxCount {
		return nil, invalid("count", fmt.Sprintf("%d; expected 1 to %d", request.Count, maxCount))
	}
	if request.Offset < 0 || request.Offset > maxOffset {
		return nil, invalid("offset", fmt.Sprintf("%d; expected 0 to 2^62", request.Offset))
	}
	// Written so that NaN fails too.
	if t := request.Temperature; t != nil && !(*t >= 0 && *t <= 10) {
		return nil, invalid("temperature", fmt.Sprintf("%v; expected 0 to 10", *t))
	}
	if request.ChunkRows < 0 || request.ChunkRows > math.MaxInt32 {
		return nil, invalid("chunk_rows", fmt.Sprintf("%d; expected 0 to %d", request.ChunkRows, math.MaxInt32))
	}
	return &pb.SampleStreamRequest{
		Model: ref, Count: int64(request.Count), Seed: request.Seed, Offset: request.Offset,
		Temperature: request.Temperature, OutputFormat: format,
		IncludeLatents: request.IncludeLatents, ChunkRows: int32(request.ChunkRows),
	}, nil
}

type sampleReply interface {
	reply
	GetSeed() uint64
	GetLatents() *pb.Tensor
}

func sampled[R sampleReply](reply R) (*SampleResult, error) {
	images, err := imagesResult(reply)
	if err != nil {
		return nil, err
	}
	latents, err := optionalTensor(reply.GetLatents())
	if err != nil {
		return nil, err
	}
	return &SampleResult{*images, reply.GetSeed(), latents}, nil
}

func chunk(reply *pb.SampleStreamResponse) (*SampleChunk, error) {
	result, err := sampled(reply)
	if err != nil {
		return nil, err
	}
	return &SampleChunk{*result, reply.GetOffset()}, nil
}
