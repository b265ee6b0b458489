package latentserve

import (
	"errors"
	"image"
	"image/color"
	"testing"

	"google.golang.org/grpc/codes"

	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

func TestPixelsAndImagesRoundTrip(t *testing.T) {
	grey := Uint8Images([]uint8{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110}, 2, 1, 2, 3)
	picture, err := grey.Image(1)
	if err != nil {
		t.Fatal(err)
	}
	if got := picture.At(2, 1); got != (color.Gray{110}) {
		t.Errorf("got %v", got)
	}
	files, err := GoImages(picture)
	if err != nil {
		t.Fatal(err)
	}
	again, err := files.Image(0)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.At(0, 1); got != (color.Gray{90}) {
		t.Errorf("got %v", got)
	}
}

func TestColourChannelsComeBeforeHeightAndWidth(t *testing.T) {
	// One image of 1 by 2 pixels: red 1 and 2, green 3 and 4, blue 5 and 6.
	picture, err := Uint8Images([]uint8{1, 2, 3, 4, 5, 6}, 1, 3, 1, 2).Image(0)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := picture.At(1, 0), (color.NRGBA{2, 4, 6, 255}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPNGOfFloats(t *testing.T) {
	file, err := Float32Images([]float32{0, 1}, 2, 1, 1, 1).PNG(1)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := FileImages(file).Image(0)
	if err != nil {
		t.Fatal(err)
	}
	if got := picture.At(0, 0); got != (color.Gray{255}) {
		t.Errorf("got %v", got)
	}
}

func TestInvalidImagesAreRefused(t *testing.T) {
	both := Uint8Images([]uint8{1}, 1, 1, 1, 1)
	both.Files = [][]byte{{1}}
	for name, images := range map[string]Images{
		"none": {}, "no files": FileImages(), "both": both, "short": Uint8Images([]uint8{1}, 1, 1, 28, 28),
	} {
		_, err := images.toProto()
		if failure, ok := errors.AsType[*Error](err); !ok || failure.Code != codes.InvalidArgument {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := GoImages(image.Image(nil)); err == nil {
		t.Error("a nil image was accepted")
	}
}

func TestRepliesWithoutImagesAreErrors(t *testing.T) {
	if _, err := imagesFrom(&pb.Images{}); !errors.Is(err, ErrBadReply) {
		t.Errorf("got %v", err)
	}
}
