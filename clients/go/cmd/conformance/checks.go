package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"math"
	"slices"
	"strconv"

	latentserve "github.com/latentserve/latentserve/clients/go"
)

const maxBatchRows = 64

// check returns an error if a result differs from the expectation of its case.
func (f caseFolder) check(test *testCase, got *callResult) error {
	expected := test.Expect.OK
	if expected == nil {
		return fmt.Errorf("the call succeeded, expected %+v", *test.Expect.Error)
	}
	if got.value != nil {
		return checkValue(got.value, expected)
	}
	if len(got.parts) == 0 {
		return fmt.Errorf("no reply")
	}
	for _, part := range got.parts {
		if err := checkSignature(part, expected["served_by"]); err != nil {
			return err
		}
		if err := checkSeed(part.seed, got.parts[0].seed, expected["seed"]); err != nil {
			return err
		}
	}
	if test.method() == "SampleStream" {
		if err := checkChunks(test, got.parts); err != nil {
			return err
		}
	}
	for name, choose := range map[string]func(part) *latentserve.Tensor{
		"latents":       func(p part) *latentserve.Tensor { return p.latents },
		"log_variance":  func(p part) *latentserve.Tensor { return p.logVariance },
		"squared_error": func(p part) *latentserve.Tensor { return p.squaredError },
	} {
		if wanted, ok := expected[name]; ok {
			if err := f.checkOptional(got.parts, choose, wanted); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if wanted, ok := expected["images"]; ok {
		if err := f.checkImages(got.parts, wanted); err != nil {
			return fmt.Errorf("images: %w", err)
		}
	}
	return nil
}

func checkSignature(got part, expected json.RawMessage) error {
	var wanted struct {
		Name    string `json:"name"`
		Version int    `json:"version"`
		Digest  string `json:"digest"`
	}
	if expected != nil {
		if err := json.Unmarshal(expected, &wanted); err != nil {
			return err
		}
		have := got.servedBy
		if have.Name != wanted.Name || have.Version != wanted.Version || have.Digest != wanted.Digest {
			return fmt.Errorf("served_by is %+v, expected %+v", have, wanted)
		}
	}
	if got.servedBy.Provider == "" {
		return fmt.Errorf("served_by.provider is empty")
	}
	t := got.timings
	if t.Queue < 0 || t.Compute <= 0 || t.BatchRows < 1 || t.BatchRows > maxBatchRows {
		return fmt.Errorf("timings are %+v", t)
	}
	return nil
}

func checkSeed(got, first *uint64, expected json.RawMessage) error {
	if expected == nil {
		return nil
	}
	var wanted *string
	if err := json.Unmarshal(expected, &wanted); err != nil {
		return err
	}
	switch {
	case wanted == nil:
		if got != nil {
			return fmt.Errorf("the seed is %d, expected none", *got)
		}
	case got == nil:
		return fmt.Errorf("the seed is missing, expected %s", *wanted)
	case *wanted == "any":
		if *got != *first {
			return fmt.Errorf("one stream has the seeds %d and %d", *first, *got)
		}
	case strconv.FormatUint(*got, 10) != *wanted:
		return fmt.Errorf("the seed is %d, expected %s", *got, *wanted)
	}
	return nil
}

func checkChunks(test *testCase, parts []part) error {
	type chunk struct {
		Offset int64 `json:"offset,string"`
		Rows   int   `json:"rows"`
	}
	var got []chunk
	next := test.Request.Offset
	for _, part := range parts {
		rows := part.images.Len()
		if part.offset != next {
			return fmt.Errorf("a chunk has the offset %d, expected %d", part.offset, next)
		}
		if part.latents != nil && part.latents.Rows() != rows {
			return fmt.Errorf("one chunk has %d latent vectors and %d images", part.latents.Rows(), rows)
		}
		got = append(got, chunk{part.offset, rows})
		next += int64(rows)
	}
	if text, ok := test.Expect.OK["chunks"]; ok {
		var wanted []chunk
		if err := json.Unmarshal(text, &wanted); err != nil {
			return err
		}
		if !slices.Equal(got, wanted) {
			return fmt.Errorf("the chunks are %v, expected %v", got, wanted)
		}
	}
	whole := test.Stream == nil || test.Stream.Resume
	if rows := next - test.Request.Offset; whole && rows != test.Request.Count {
		return fmt.Errorf("the chunks have %d rows in total, expected %d", rows, test.Request.Count)
	}
	return nil
}

func (f caseFolder) checkOptional(parts []part, choose func(part) *latentserve.Tensor, expected json.RawMessage) error {
	var wanted *caseTensor
	if err := json.Unmarshal(expected, &wanted); err != nil {
		return err
	}
	var tensors []*latentserve.Tensor
	for _, part := range parts {
		tensor := choose(part)
		switch {
		case wanted == nil && tensor != nil:
			return fmt.Errorf("is present, expected none")
		case wanted != nil && tensor == nil:
			return fmt.Errorf("is missing")
		case tensor != nil:
			tensors = append(tensors, tensor)
		}
	}
	if wanted == nil {
		return nil
	}
	return f.checkTensor(tensors, wanted)
}

func (f caseFolder) checkImages(parts []part, expected json.RawMessage) error {
	var wanted struct {
		Tensor *caseTensor `json:"tensor"`
		PNG    *caseTensor `json:"png"`
	}
	if err := json.Unmarshal(expected, &wanted); err != nil {
		return err
	}
	var tensors []*latentserve.Tensor
	for _, part := range parts {
		switch {
		case part.images == nil:
			return fmt.Errorf("are missing")
		case wanted.Tensor != nil && part.images.Pixels != nil:
			tensors = append(tensors, part.images.Pixels)
		case wanted.PNG != nil && part.images.Pixels == nil:
			for k := range part.images.Files {
				pixels, err := pixelsOf(part.images, k)
				if err != nil {
					return err
				}
				tensors = append(tensors, pixels)
			}
		default:
			return fmt.Errorf("have another form than %s", expected)
		}
	}
	if wanted.PNG != nil {
		return f.checkTensor(tensors, wanted.PNG)
	}
	return f.checkTensor(tensors, wanted.Tensor)
}

// pixelsOf returns a PNG file as a tensor of one row.
func pixelsOf(images *latentserve.Images, k int) (*latentserve.Tensor, error) {
	if !bytes.HasPrefix(images.Files[k], []byte("\x89PNG\r\n\x1a\n")) {
		return nil, fmt.Errorf("file %d is not a PNG file", k)
	}
	picture, err := images.Image(k)
	if err != nil {
		return nil, err
	}
	size := picture.Bounds().Size()
	if grey, ok := picture.(*image.Gray); ok {
		return &latentserve.Tensor{Shape: []int{1, 1, size.Y, size.X}, Uint8: grey.Pix}, nil
	}
	tensor := &latentserve.Tensor{Shape: []int{1, 3, size.Y, size.X}}
	for channel := range 3 {
		for i := range size.X * size.Y {
			r, g, b, _ := picture.At(i%size.X, i/size.X).RGBA()
			tensor.Uint8 = append(tensor.Uint8, uint8([...]uint32{r, g, b}[channel]>>8))
		}
	}
	return tensor, nil
}

// checkTensor compares concatenated tensors with the expected tensor.
func (f caseFolder) checkTensor(parts []*latentserve.Tensor, expected *caseTensor) error {
	var shape []int64
	var got []float64
	for _, part := range parts {
		dtype, values := valuesOf(part)
		if dtype != expected.DType {
			return fmt.Errorf("the data type is %s, expected %s", dtype, expected.DType)
		}
		if shape == nil {
			for _, n := range part.Shape {
				shape = append(shape, int64(n))
			}
		} else if !slices.EqualFunc(shape[1:], part.Shape[1:], func(a int64, b int) bool { return a == int64(b) }) {
			return fmt.Errorf("one reply has the shapes %v and %v", shape, part.Shape)
		} else {
			shape[0] += int64(part.Shape[0])
		}
		got = append(got, values...)
	}
	if !slices.Equal(shape, expected.Shape) {
		return fmt.Errorf("the shape is %v, expected %v", shape, expected.Shape)
	}
	if expected.Data == nil {
		return nil
	}
	tensor, err := f.tensor(expected)
	if err != nil {
		return err
	}
	_, wanted := valuesOf(&tensor)
	if len(got) != len(wanted) {
		return fmt.Errorf("%d values, expected %d", len(got), len(wanted))
	}
	for i := range wanted {
		// Written so that NaN fails too.
		if !(math.Abs(got[i]-wanted[i]) <= expected.ATol+expected.RTol*math.Abs(wanted[i])) {
			return fmt.Errorf("value %d is %.9g, expected %.9g", i, got[i], wanted[i])
		}
	}
	return nil
}

// valuesOf returns the data type and the values of a tensor; UINT8 values are 0 to 255.
func valuesOf(tensor *latentserve.Tensor) (string, []float64) {
	dtype := "FLOAT32"
	switch {
	case tensor.Uint8 != nil:
		values := make([]float64, len(tensor.Uint8))
		for i, level := range tensor.Uint8 {
			values[i] = float64(level)
		}
		return "UINT8", values
	case tensor.Float16 != nil:
		dtype = "FLOAT16"
	}
	floats := tensor.Floats()
	values := make([]float64, len(floats))
	for i, value := range floats {
		values[i] = float64(value)
	}
	return dtype, values
}
