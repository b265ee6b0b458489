package latentserve

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg" // registers JPEG with image.Decode
	"image/png"

	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// Images holds images as pixels or as encoded files.
type Images struct {
	// Pixels is [n, channels, height, width]: floats in [0, 1], or bytes.
	Pixels *Tensor
	// Files holds one PNG or JPEG file per image, of exactly the model's size. The server converts
	// between greyscale and colour as the model requires. Files in results are PNG.
	Files [][]byte
}

// Float32Images creates images from intensities in [0, 1], as [n, channels, height, width].
func Float32Images(values []float32, n, channels, height, width int) Images {
	return Images{Pixels: &Tensor{Shape: []int{n, channels, height, width}, Float32: values}}
}

// Uint8Images creates images from levels from 0 to 255, as [n, channels, height, width].
func Uint8Images(values []uint8, n, channels, height, width int) Images {
	return Images{Pixels: &Tensor{Shape: []int{n, channels, height, width}, Uint8: values}}
}

// FileImages creates images from PNG or JPEG files, which are sent unchanged.
func FileImages(files ...[]byte) Images {
	return Images{Files: files}
}

// GoImages encodes images of Go's image package as PNG files.
func GoImages(images ...image.Image) (Images, error) {
	files := make([][]byte, len(images))
	for k, picture := range images {
		file, err := encodePNG(picture)
		if err != nil {
			return Images{}, fmt.Errorf("latentserve: image %d: %w", k, err)
		}
		files[k] = file
	}
	return Images{Files: files}, nil
}

// Len returns the number of images.
func (m Images) Len() int {
	if m.Pixels != nil {
		return m.Pixels.Rows()
	}
	return len(m.Files)
}

// PNG returns image k as a PNG file: the received file, or pixels encoded by the client.
func (m Images) PNG(k int) ([]byte, error) {
	if m.Pixels == nil {
		return m.Files[k], nil
	}
	picture, err := m.Image(k)
	if err != nil {
		return nil, err
	}
	return encodePNG(picture)
}

// Image decodes image k. Pixels become an *image.Gray or *image.NRGBA.
func (m Images) Image(k int) (image.Image, error) {
	if m.Pixels == nil {
		picture, _, err := image.Decode(bytes.NewReader(m.Files[k]))
		return picture, err
	}
	if len(m.Pixels.Shape) != 4 {
		return nil, fmt.Errorf("latentserve: images have shape %v; expected [n, channels, height, width]", m.Pixels.Shape)
	}
	channels, height, width := m.Pixels.Shape[1], m.Pixels.Shape[2], m.Pixels.Shape[3]
	size := channels * height * width
	levels := m.Pixels.part(k*size, (k+1)*size).Bytes()
	box := image.Rect(0, 0, width, height)
	switch channels {
	case 1:
		return &image.Gray{Pix: levels, Stride: width, Rect: box}, nil
	case 3:
		picture := image.NewNRGBA(box)
		for i := range height * width {
			picture.SetNRGBA(i%width, i/width, color.NRGBA{
				R: levels[i], G: levels[height*width+i], B: levels[2*height*width+i], A: 255,
			})
		}
		return picture, nil
	default:
		return nil, fmt.Errorf("latentserve: images have %d channels; expected 1 or 3", channels)
	}
}

// part returns a range of the values of a tensor, without a shape.
func (t Tensor) part(start, end int) Tensor {
	switch {
	case t.Float16 != nil:
		return Tensor{Float16: t.Float16[start:end]}
	case t.Uint8 != nil:
		return Tensor{Uint8: t.Uint8[start:end]}
	default:
		return Tensor{Float32: t.Float32[start:end]}
	}
}

func encodePNG(picture image.Image) ([]byte, error) {
	if picture == nil {
		return nil, errors.New("the image is nil")
	}
	var buffer bytes.Buffer
	// Images are small: speed matters more than size.
	encoder := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := encoder.Encode(&buffer, picture); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

func (m Images) toProto() (*pb.Images, error) {
	switch {
	case m.Pixels != nil && m.Files != nil:
		return nil, invalid("images", "both Pixels and Files are set; expected one of them")
	case m.Pixels != nil:
		tensor, err := m.Pixels.toProto("images.tensor", 4)
		if err != nil {
			return nil, err
		}
		return &pb.Images{Form: &pb.Images_Tensor{Tensor: tensor}}, nil
	case len(m.Files) > 0:
		return &pb.Images{Form: &pb.Images_Encoded{Encoded: &pb.EncodedImages{Files: m.Files}}}, nil
	default:
		return nil, invalid("images", "no images; expected at least one")
	}
}

func imagesFrom(message *pb.Images) (Images, error) {
	switch form := message.GetForm().(type) {
	case *pb.Images_Tensor:
		tensor, err := tensorFrom(form.Tensor, 4)
		if err != nil {
			return Images{}, err
		}
		return Images{Pixels: &tensor}, nil
	case *pb.Images_Encoded:
		return Images{Files: form.Encoded.GetFiles()}, nil
	default:
		return Images{}, badReply("the reply has no images")
	}
}
