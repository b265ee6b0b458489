package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	latentserve "github.com/latentserve/latentserve/clients/go"
)

const defaultDeadlineMS = 20_000

// testCase is one case in the format of clients/conformance/README.md.
type testCase struct {
	Name          string            `json:"name"`
	Server        string            `json:"server"`
	RPC           string            `json:"rpc"`
	Through       string            `json:"through"`
	Request       caseRequest       `json:"request"`
	Body          *caseData         `json:"body"`
	Metadata      map[string]string `json:"metadata"`
	DeadlineMS    int               `json:"deadline_ms"`
	Retry         bool              `json:"retry"`
	CancelAfterMS int               `json:"cancel_after_ms"`
	Stream        *struct {
		CancelAfter int  `json:"cancel_after"`
		Resume      bool `json:"resume"`
	} `json:"stream"`
	Expect struct {
		OK    map[string]json.RawMessage `json:"ok"`
		Error *expectedError             `json:"error"`
	} `json:"expect"`
}

func (c *testCase) group() string {
	group, _, _ := strings.Cut(c.Name, "/")
	return group
}

// method returns the method's name without package and service.
func (c *testCase) method() string { return c.RPC[strings.LastIndex(c.RPC, "/")+1:] }

// caseRequest is the request of a case; nil for absent fields.
type caseRequest struct {
	Model *struct {
		Name    string `json:"name"`
		Version int32  `json:"version"`
	} `json:"model"`
	Images *struct {
		Tensor  *caseTensor `json:"tensor"`
		Encoded []string    `json:"encoded"`
	} `json:"images"`
	Latents        *caseTensor      `json:"latents"`
	OutputFormat   string           `json:"output_format"`
	Count          int64            `json:"count,string"`
	Seed           *uint64          `json:"seed,string"`
	Offset         int64            `json:"offset,string"`
	Temperature    *caseTemperature `json:"temperature"`
	IncludeLatents bool             `json:"include_latents"`
	ChunkRows      int32            `json:"chunk_rows"`
	Service        string           `json:"service"`
	Names          []string         `json:"names"`
}

type caseTemperature float32

func (t *caseTemperature) UnmarshalJSON(text []byte) error {
	if string(text) == `"NaN"` {
		*t = caseTemperature(math.NaN())
		return nil
	}
	return json.Unmarshal(text, (*float32)(t))
}

// caseData is the bytes of a file, or zero bytes.
type caseData struct {
	File  string `json:"file"`
	Zeros int    `json:"zeros"`
}

// caseTensor is a tensor of a request, or an expected tensor with its tolerance.
type caseTensor struct {
	DType  string    `json:"dtype"`
	Shape  []int64   `json:"shape"`
	Data   *caseData `json:"data"`
	Repeat int       `json:"repeat"`
	ATol   float64   `json:"atol"`
	RTol   float64   `json:"rtol"`
}

// caseFolder is the folder that holds the cases.
type caseFolder string

// read returns the cases of these groups, or of all groups if none is given.
func (f caseFolder) read(groups []string) ([]*testCase, error) {
	var index struct {
		Groups []string `json:"groups"`
	}
	if err := f.decode("index.json", &index); err != nil {
		return nil, err
	}
	var known []string
	var cases []*testCase
	for _, file := range index.Groups {
		var document struct {
			Group string      `json:"group"`
			Cases []*testCase `json:"cases"`
		}
		if err := f.decode(file, &document); err != nil {
			return nil, err
		}
		known = append(known, document.Group)
		if len(groups) == 0 || slices.Contains(groups, document.Group) {
			cases = append(cases, document.Cases...)
		}
	}
	for _, group := range groups {
		if !slices.Contains(known, group) {
			return nil, fmt.Errorf("unknown group %q; available: %s", group, strings.Join(known, ", "))
		}
	}
	return cases, nil
}

func (f caseFolder) decode(name string, into any) error {
	text, err := f.file(name)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields() // unknown fields would not be checked
	if name == "index.json" {
		decoder = json.NewDecoder(bytes.NewReader(text))
	}
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (f caseFolder) file(path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), filepath.FromSlash(path)))
}

func (f caseFolder) bytes(data *caseData) ([]byte, error) {
	if data.File == "" {
		return make([]byte, data.Zeros), nil
	}
	return f.file(data.File)
}

func (f caseFolder) tensorBytes(tensor *caseTensor) ([]byte, error) {
	data, err := f.bytes(tensor.Data)
	return bytes.Repeat(data, max(1, tensor.Repeat)), err
}

// tensor returns a tensor whose bytes match its shape.
func (f caseFolder) tensor(tensor *caseTensor) (latentserve.Tensor, error) {
	data, err := f.tensorBytes(tensor)
	if err != nil {
		return latentserve.Tensor{}, err
	}
	return decodeTensor(tensor.DType, tensor.Shape, data)
}

func decodeTensor(dtype string, shape []int64, data []byte) (latentserve.Tensor, error) {
	result := latentserve.Tensor{}
	for _, n := range shape {
		result.Shape = append(result.Shape, int(n))
	}
	var err error
	switch dtype {
	case "FLOAT32":
		result.Float32 = make([]float32, len(data)/4)
		_, err = binary.Decode(data, binary.LittleEndian, result.Float32)
	case "FLOAT16":
		result.Float16 = make([]uint16, len(data)/2)
		_, err = binary.Decode(data, binary.LittleEndian, result.Float16)
	case "UINT8":
		result.Uint8 = data
	default:
		err = fmt.Errorf("the client has no data type %s", dtype)
	}
	return result, err
}
