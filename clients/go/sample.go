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

// maxOffset is the last row that a stream may start at.
const maxOffset = 1 << 62

// SampleRequest asks for images drawn from the model. The latent of image k depends on the seed,
// Offset+k and the temperature alone.
type SampleRequest struct {
	Model          string   // as in EncodeRequest
	Count          int      // at least 1; Sample: at most the model's Limits.MaxRequestRows
	Seed           *uint64  // nil: the server draws one and returns it
	Offset         int64    // the first row of the seed's stream
	Temperature    *float32 // 0 to 10; below 1 draws nearer the mode. nil: 1
	Format         Format
	IncludeLatents bool
	ChunkRows      int // images per chunk, for SampleStream; 0: the server chooses
}

// SampleResult holds images drawn from the model.
type SampleResult struct {
	ImagesResult
	Seed    uint64  // the request's, or the one that the server drew
	Latents *Tensor // float32 [n, dim], what the images were decoded from; nil unless asked for
}

// SampleChunk holds some consecutive images of a stream.
type SampleChunk struct {
	SampleResult
	Offset int64 // the row of the seed's stream that the first image is
}

// NextOffset returns where to resume after this chunk: [SampleRequest.Offset], with the same Seed.
func (c *SampleChunk) NextOffset() int64 { return c.Offset + int64(c.Images.Len()) }

// Sample draws images from the model.
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

// SampleStream draws many images and yields them in chunks, the same that Sample gives:
//
//	for chunk, err := range client.SampleStream(ctx, request) {
//		if err != nil {
//			return err
//		}
//		...
//	}
//
// An error is the last that it yields. Leaving the loop cancels the rest. After a break, go on
// with the seed of the last chunk and its [SampleChunk.NextOffset].
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

// receive yields the converted messages of a stream until it ends, fails or is left.
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

// sampleRequest checks what can be judged here. A stream's message has all that both have.
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
	// Not the opposite: NaN fails this too.
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

type drawn interface {
	reply
	GetSeed() uint64
	GetLatents() *pb.Tensor
}

func sampled[R drawn](reply R) (*SampleResult, error) {
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
