// Command bench is a benchmark of single-image Reconstruct through the client. It measures the median
// latency with one call in flight, then calls per second with 32 in flight, and prints one line of
// JSON.
//
//	go run ./cmd/bench --address 127.0.0.1:50051 --model mnist-vae --seconds 5
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"sync"
	"time"

	latentserve "github.com/latentserve/latentserve/clients/go"
)

const (
	inFlight = 32
	warmUp   = 200 // calls
)

type report struct {
	Language string  `json:"language"`
	P50us    float64 `json:"p50_us"`
	PerS     float64 `json:"calls_per_s"`
}

func main() {
	address := flag.String("address", "127.0.0.1:50051", "HOST:PORT of the server")
	model := flag.String("model", "mnist-vae", "model that supports reconstruct")
	seconds := flag.Float64("seconds", 5, "duration of each of the two measurements in seconds")
	flag.Parse()
	result, err := measure(context.Background(), *address, *model, time.Duration(*seconds*float64(time.Second)))
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}

func measure(ctx context.Context, address, name string, span time.Duration) (*report, error) {
	if span <= 0 {
		return nil, fmt.Errorf("--seconds is %v; expected more than 0 s", span)
	}
	client, err := latentserve.New(address, latentserve.WithModel(name))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	model, err := client.Model(ctx, "")
	if err != nil {
		return nil, err
	}
	request := latentserve.ReconstructRequest{Images: ramp(model.Image)}
	call := func() error {
		_, err := client.Reconstruct(ctx, request)
		return err
	}
	for range warmUp {
		if err := call(); err != nil {
			return nil, err
		}
	}
	p50, err := oneByOne(call, span)
	if err != nil {
		return nil, err
	}
	perS, err := together(call, span)
	if err != nil {
		return nil, err
	}
	return &report{"go", float64(p50.Nanoseconds()) / 1000, perS}, nil
}

// ramp returns one image with linearly increasing intensities.
func ramp(spec latentserve.ImageSpec) latentserve.Images {
	values := make([]float32, spec.Channels*spec.Height*spec.Width)
	for i := range values {
		values[i] = float32(i) / float32(len(values))
	}
	return latentserve.Float32Images(values, 1, spec.Channels, spec.Height, spec.Width)
}

// oneByOne returns the median latency with one call in flight.
func oneByOne(call func() error, span time.Duration) (time.Duration, error) {
	var times []time.Duration
	for end := time.Now().Add(span); time.Now().Before(end); {
		start := time.Now()
		if err := call(); err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

// together returns the calls per second with 32 in flight.
func together(call func() error, span time.Duration) (float64, error) {
	var mutex sync.Mutex
	var calls int
	var failure error
	var group sync.WaitGroup
	start := time.Now()
	end := start.Add(span)
	for range inFlight {
		group.Go(func() {
			done := 0
			var err error
			for err == nil && time.Now().Before(end) {
				if err = call(); err == nil {
					done++
				}
			}
			mutex.Lock()
			defer mutex.Unlock()
			calls += done
			if failure == nil {
				failure = err
			}
		})
	}
	group.Wait()
	return float64(calls) / time.Since(start).Seconds(), failure
}
