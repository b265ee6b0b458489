// Package latentserve is the Go client of latentserve, a gRPC server for generative models of images:
// it encodes, decodes, reconstructs, denoises and samples images.
//
//	client, err := latentserve.New("127.0.0.1:50051", latentserve.WithModel("mnist-vae"))
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	samples, err := client.Sample(ctx, latentserve.SampleRequest{Count: 8, Seed: new(uint64(7))})
//
// The error of a call is an [Error]. The context sets the deadline of a call, cancels it, and carries
// outgoing metadata, as is usual in gRPC. A call without a deadline has the timeout of the client
// (see [WithTimeout]).
package latentserve

//go:generate make generate
