// Command digits is an example: it samples eight digits into a PNG file, reconstructs one, and prints
// the error of an invalid request.
//
//	go run ./examples/digits --address 127.0.0.1:50051
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"io"
	"log"
	"os"
	"path/filepath"

	latentserve "github.com/latentserve/latentserve/clients/go"
)

func main() {
	address := flag.String("address", "127.0.0.1:50051", "HOST:PORT of the server")
	model := flag.String("model", "mnist-vae", "model that supports sample and reconstruct")
	folder := flag.String("out", ".", "folder for the images")
	flag.Parse()
	if err := run(context.Background(), *address, *model, *folder, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address, model, folder string, out io.Writer) error {
	client, err := latentserve.New(address, latentserve.WithModel(model))
	if err != nil {
		return err
	}
	defer client.Close()

	sampled, err := client.Sample(ctx, latentserve.SampleRequest{Count: 8, Seed: new(uint64(7)), Format: latentserve.PNG})
	if err != nil {
		return err
	}
	path := filepath.Join(folder, "samples.png")
	if err := writeRow(path, sampled.Images); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %d digits of %s:%d, seed %d\n",
		path, sampled.Images.Len(), sampled.ServedBy.Name, sampled.ServedBy.Version, sampled.Seed)

	// Any PNG or JPEG file of the model's size works; this one was sampled above.
	file := sampled.Images.Files[0]
	reconstruction, err := client.Reconstruct(ctx, latentserve.ReconstructRequest{Images: latentserve.FileImages(file)})
	if err != nil {
		return err
	}
	path = filepath.Join(folder, "reconstructed.png")
	if err := writeRow(path, reconstruction.Images); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: squared error %.3f over %v\n", path, reconstruction.SquaredError[0], reconstruction.Images.Pixels.Shape)

	tooTall := latentserve.Float32Images(make([]float32, 32*28), 1, 1, 32, 28)
	_, err = client.Encode(ctx, latentserve.EncodeRequest{Images: tooTall})
	failure, ok := errors.AsType[*latentserve.Error](err)
	if !ok {
		return fmt.Errorf("the server accepted an image that is too tall: %v", err)
	}
	fmt.Fprintf(out, "expected error: %v\n", failure)
	for _, violation := range failure.Violations {
		fmt.Fprintf(out, "  %s: %s\n", violation.Field, violation.Description)
	}
	return nil
}

// writeRow writes the images side by side to a PNG file.
func writeRow(path string, images latentserve.Images) error {
	const gap = 4
	var row *image.Gray
	for k := range images.Len() {
		img, err := images.Image(k)
		if err != nil {
			return err
		}
		size := img.Bounds().Size()
		if row == nil {
			row = image.NewGray(image.Rect(0, 0, images.Len()*(size.X+gap)-gap, size.Y))
		}
		at := image.Pt(k*(size.X+gap), 0)
		draw.Draw(row, image.Rectangle{Min: at, Max: at.Add(size)}, img, img.Bounds().Min, draw.Src)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(png.Encode(file, row), file.Close())
}
