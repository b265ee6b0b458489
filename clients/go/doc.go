// Package latentserve is the Go client of latentserve: it encodes, decodes, reconstructs,
// denoises and samples images by generative autoencoders that a server runs.
//
//	client, err := latentserve.New("127.0.0.1:50051", latentserve.WithModel("mnist-vae"))
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	drawn, err := client.Sample(ctx, latentserve.SampleRequest{Count: 8, Seed: new(uint64(7))})
//
// What can go wrong in a call is an [Error]. A context bounds and cancels a call, and carries
// further metadata as it does everywhere in gRPC; a call without a deadline gets the client's
// (see [WithTimeout]).
package latentserve

//go:generate make generate
