package latentserve

import (
	"context"
	"fmt"
	"time"

	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// Format is the format of the images in a reply.
type Format int

// Formats of images. Float32 is the default.
const (
	Float32 Format = iota // floats in [0, 1]
	Float16               // the bits of binary16, in [0, 1]
	Uint8                 // 0 to 255
	PNG                   // one file per image
)

var formats = map[Format]pb.ImageFormat{
	Float32: pb.ImageFormat_IMAGE_FORMAT_FLOAT32,
	Float16: pb.ImageFormat_IMAGE_FORMAT_FLOAT16,
	Uint8:   pb.ImageFormat_IMAGE_FORMAT_UINT8,
	PNG:     pb.ImageFormat_IMAGE_FORMAT_PNG,
}

func (f Format) toProto() (pb.ImageFormat, error) {
	format, ok := formats[f]
	if !ok {
		return 0, invalid("output_format", fmt.Sprintf("%d; expected Float32, Float16, Uint8 or PNG", f))
	}
	return format, nil
}

// ServedBy is the model version that served a call, and its execution provider.
type ServedBy struct {
	Name     string
	Version  int
	Digest   string // SHA-256 of the model's manifest, which identifies the weights
	Provider string // ONNX Runtime execution provider, for example "CPUExecutionProvider"
}

// Timings are durations of one call on the server.
type Timings struct {
	Queue     time.Duration // until the first batch with rows of this call started
	Compute   time.Duration // in ONNX Runtime
	BatchRows int           // rows of the largest batch of this call, including rows of other calls
}

// EncodeRequest is a request to encode images to latents.
type EncodeRequest struct {
	Model  string // "NAME" or "NAME:VERSION"; if empty, the client's model, or else the server's default
	Images Images
	Seed   *uint64 // nil returns the mean of q(z|x); a seed returns a sample from it
}

// EncodeResult holds latents, in the order of the images.
type EncodeResult struct {
	Latents     Tensor  // float32 [n, dim]
	LogVariance *Tensor // float32 [n, dim]: natural logarithm of the variance; nil if the model has none
	Seed        *uint64 // seed of the sample; nil if the latents are the mean
	ServedBy    ServedBy
	Timings     Timings
}

// Encode encodes images to latents: the mean of q(z|x) or, with a seed, a sample from it.
func (c *Client) Encode(ctx context.Context, request EncodeRequest) (*EncodeResult, error) {
	ref, err := c.ref(request.Model)
	if err != nil {
		return nil, err
	}
	images, err := request.Images.toProto()
	if err != nil {
		return nil, err
	}
	message := &pb.EncodeRequest{Model: ref, Images: images, Seed: request.Seed}
	return call(ctx, c, c.timeout, c.generative.Encode, message, encoded)
}

func encoded(reply *pb.EncodeResponse) (*EncodeResult, error) {
	latents, err := tensorFrom(reply.GetLatents(), 2)
	if err != nil {
		return nil, err
	}
	logVariance, err := optionalTensor(reply.GetLogVariance())
	if err != nil {
		return nil, err
	}
	return &EncodeResult{latents, logVariance, reply.Seed, servedBy(reply.GetServedBy()), timings(reply.GetTimings())}, nil
}

// DecodeRequest is a request to decode latents to images.
type DecodeRequest struct {
	Model   string // as in EncodeRequest
	Latents Tensor // Float32 or Float16 [n, dim]; see [Latents]
	Format  Format
}

// ImagesResult holds images, in the order of the request.
type ImagesResult struct {
	Images   Images
	ServedBy ServedBy
	Timings  Timings
}

// Decode decodes latents to images: the mean of p(x|z).
func (c *Client) Decode(ctx context.Context, request DecodeRequest) (*ImagesResult, error) {
	ref, err := c.ref(request.Model)
	if err != nil {
		return nil, err
	}
	latents, err := request.Latents.toProto("latents", 2)
	if err != nil {
		return nil, err
	}
	format, err := request.Format.toProto()
	if err != nil {
		return nil, err
	}
	message := &pb.DecodeRequest{Model: ref, Latents: latents, OutputFormat: format}
	return call(ctx, c, c.timeout, c.generative.Decode, message, imagesResult[*pb.DecodeResponse])
}

// ReconstructRequest is a request to encode and decode images.
type ReconstructRequest struct {
	Model  string // as in EncodeRequest
	Images Images
	Format Format
}

// ReconstructResult holds reconstructions, in the order of the images.
type ReconstructResult struct {
	ImagesResult
	// SquaredError of each image, summed over channels and pixels of images in [0, 1].
	SquaredError []float32
}

// Reconstruct encodes images to their mean latents and decodes these.
func (c *Client) Reconstruct(ctx context.Context, request ReconstructRequest) (*ReconstructResult, error) {
	ref, err := c.ref(request.Model)
	if err != nil {
		return nil, err
	}
	images, err := request.Images.toProto()
	if err != nil {
		return nil, err
	}
	format, err := request.Format.toProto()
	if err != nil {
		return nil, err
	}
	message := &pb.ReconstructRequest{Model: ref, Images: images, OutputFormat: format}
	return call(ctx, c, c.timeout, c.generative.Reconstruct, message, reconstructed)
}

func reconstructed(reply *pb.ReconstructResponse) (*ReconstructResult, error) {
	result, err := imagesResult(reply)
	if err != nil {
		return nil, err
	}
	return &ReconstructResult{*result, reply.GetSquaredError()}, nil
}

// DenoiseRequest is a request to remove noise from images.
type DenoiseRequest struct {
	Model  string // as in EncodeRequest
	Images Images // floats may range from -10 to 10
	Format Format
}

// Denoise removes the noise from images.
func (c *Client) Denoise(ctx context.Context, request DenoiseRequest) (*ImagesResult, error) {
	ref, err := c.ref(request.Model)
	if err != nil {
		return nil, err
	}
	images, err := request.Images.toProto()
	if err != nil {
		return nil, err
	}
	format, err := request.Format.toProto()
	if err != nil {
		return nil, err
	}
	message := &pb.DenoiseRequest{Model: ref, Images: images, OutputFormat: format}
	return call(ctx, c, c.timeout, c.generative.Denoise, message, imagesResult[*pb.DenoiseResponse])
}

type reply interface {
	GetImages() *pb.Images
	GetServedBy() *pb.ServedBy
	GetTimings() *pb.Timings
}

func imagesResult[R reply](reply R) (*ImagesResult, error) {
	images, err := imagesFrom(reply.GetImages())
	if err != nil {
		return nil, err
	}
	return &ImagesResult{images, servedBy(reply.GetServedBy()), timings(reply.GetTimings())}, nil
}

func optionalTensor(message *pb.Tensor) (*Tensor, error) {
	if message == nil {
		return nil, nil
	}
	tensor, err := tensorFrom(message, 2)
	return &tensor, err
}

func servedBy(message *pb.ServedBy) ServedBy {
	return ServedBy{message.GetName(), int(message.GetVersion()), message.GetDigest(), message.GetProvider()}
}

func timings(message *pb.Timings) Timings {
	return Timings{time.Duration(message.GetQueueNs()), time.Duration(message.GetComputeNs()), int(message.GetBatchRows())}
}
