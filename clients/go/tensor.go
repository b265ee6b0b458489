package latentserve

import (
	"encoding/binary"
	"fmt"
	"math"

	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// Tensor is a dense array in row-major order. Exactly one of the three slices is set.
type Tensor struct {
	// Shape is the size of each dimension, outermost first.
	Shape []int
	// Float32 holds the values as single precision.
	Float32 []float32
	// Float16 holds the values as the bits of IEEE 754 binary16; see [Tensor.Floats].
	Float16 []uint16
	// Uint8 holds the values as bytes; in images, 0 to 255 represent 0 to 1.
	Uint8 []uint8
}

// Latents creates latents for [Client.Decode]: n rows of len(values)/n values each.
func Latents(values []float32, n int) Tensor {
	dim := 0
	if n > 0 {
		dim = len(values) / n
	}
	return Tensor{Shape: []int{n, dim}, Float32: values}
}

// Rows returns the size of the first dimension.
func (t Tensor) Rows() int {
	if len(t.Shape) == 0 {
		return 0
	}
	return t.Shape[0]
}

// Row returns row k of a float32 tensor as a subslice.
func (t Tensor) Row(k int) []float32 {
	size := len(t.Float32) / t.Rows()
	return t.Float32[k*size : (k+1)*size]
}

// Floats returns the values as float32: the slice Float32 itself, or the converted values of Float16
// or Uint8 (bytes divided by 255).
func (t Tensor) Floats() []float32 {
	switch {
	case t.Float16 != nil:
		values := make([]float32, len(t.Float16))
		for i, bits := range t.Float16 {
			values[i] = float16(bits)
		}
		return values
	case t.Uint8 != nil:
		values := make([]float32, len(t.Uint8))
		for i, level := range t.Uint8 {
			values[i] = float32(level) / 255
		}
		return values
	default:
		return t.Float32
	}
}

// Bytes returns the values of images as 0 to 255, clamped and rounded half to even as the server
// does; for Uint8, the slice itself.
func (t Tensor) Bytes() []uint8 {
	if t.Uint8 != nil {
		return t.Uint8
	}
	floats := t.Floats()
	levels := make([]uint8, len(floats))
	for i, value := range floats {
		levels[i] = uint8(math.RoundToEven(float64(255 * max(0, min(1, value)))))
	}
	return levels
}

// float16 converts the bits of an IEEE 754 binary16.
func float16(bits uint16) float32 {
	sign := uint32(bits&0x8000) << 16
	exponent := uint32(bits>>10) & 0x1f
	fraction := uint32(bits & 0x3ff)
	switch exponent {
	case 0: // zero or subnormal: fraction * 2^-24, which float32 holds exactly
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	default:
		return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
	}
}

// toProto converts to the message; an error names the field.
func (t Tensor) toProto(field string, rank int) (*pb.Tensor, error) {
	forms, length := 0, 0
	message := &pb.Tensor{}
	if t.Float32 != nil {
		forms, length = forms+1, len(t.Float32)
		message.DataType = pb.DataType_DATA_TYPE_FLOAT32
	}
	if t.Float16 != nil {
		forms, length = forms+1, len(t.Float16)
		message.DataType = pb.DataType_DATA_TYPE_FLOAT16
	}
	if t.Uint8 != nil {
		forms, length = forms+1, len(t.Uint8)
		message.DataType = pb.DataType_DATA_TYPE_UINT8
	}
	if forms != 1 {
		return nil, invalid(field, fmt.Sprintf("%d of Float32, Float16 and Uint8 are set; expected exactly one", forms))
	}
	if len(t.Shape) != rank {
		return nil, invalid(field+".shape", fmt.Sprintf("%v; expected %d dimensions", t.Shape, rank))
	}
	size, ok := elements(t.Shape)
	if !ok || size == 0 {
		return nil, invalid(field+".shape", fmt.Sprintf("%v; every dimension must be at least 1", t.Shape))
	}
	if size != length {
		return nil, invalid(field, fmt.Sprintf("%d values for the shape %v; expected %d", length, t.Shape, size))
	}
	for _, n := range t.Shape {
		message.Shape = append(message.Shape, int64(n))
	}
	message.Data = t.encode(length)
	return message, nil
}

// encode returns the values in wire format: little-endian on every machine.
func (t Tensor) encode(length int) []byte {
	switch {
	case t.Float32 != nil:
		return encodeValues(make([]byte, 0, 4*length), t.Float32)
	case t.Float16 != nil:
		return encodeValues(make([]byte, 0, 2*length), t.Float16)
	default:
		return t.Uint8
	}
}

func encodeValues(buffer []byte, values any) []byte {
	data, err := binary.Append(buffer, binary.LittleEndian, values)
	if err != nil {
		panic(err) // it accepts every slice of numbers
	}
	return data
}

// tensorFrom checks and converts the tensor of a reply.
func tensorFrom(message *pb.Tensor, rank int) (Tensor, error) {
	tensor := Tensor{Shape: make([]int, len(message.GetShape()))}
	for i, n := range message.GetShape() {
		tensor.Shape[i] = int(n)
	}
	size, ok := elements(tensor.Shape)
	if len(tensor.Shape) != rank || !ok {
		return Tensor{}, badReply(fmt.Sprintf("the reply has a tensor of shape %v; expected %d dimensions", tensor.Shape, rank))
	}
	data := message.GetData()
	width, known := map[pb.DataType]int{
		pb.DataType_DATA_TYPE_FLOAT32: 4,
		pb.DataType_DATA_TYPE_FLOAT16: 2,
		pb.DataType_DATA_TYPE_UINT8:   1,
	}[message.GetDataType()]
	if !known {
		return Tensor{}, badReply(fmt.Sprintf("the reply has a tensor of unknown data type %d", message.GetDataType()))
	}
	// Division, because a product could overflow.
	if len(data)%width != 0 || len(data)/width != size {
		return Tensor{}, badReply(fmt.Sprintf("the reply has %d bytes for a %v tensor of shape %v", len(data), message.GetDataType(), tensor.Shape))
	}
	switch width {
	case 4:
		tensor.Float32 = make([]float32, size)
		decodeValues(data, tensor.Float32)
	case 2:
		tensor.Float16 = make([]uint16, size)
		decodeValues(data, tensor.Float16)
	default:
		tensor.Uint8 = data
	}
	return tensor, nil
}

func decodeValues(data []byte, values any) {
	if _, err := binary.Decode(data, binary.LittleEndian, values); err != nil {
		panic(err) // the length has been checked
	}
}

// elements returns the product of the dimensions, and whether it did not overflow.
func elements(shape []int) (int, bool) {
	product := 1
	for _, n := range shape {
		if n < 0 || n > 0 && product > math.MaxInt/n {
			return 0, false
		}
		product *= n
	}
	return product, true
}
