package latentserve

import (
	"context"
	"fmt"
	"strings"

	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// Model is one version of one model.
type Model struct {
	Name        string
	Version     int
	State       string // "ready", "loading" or "refused"
	Reason      string // why it was refused; empty otherwise
	Digest      string // SHA-256 of its manifest
	Kind        string // for example "autoencoder", "denoising", "vae"
	Description string // one sentence
	Image       ImageSpec
	Latent      LatentSpec
	Operations  []string    // of "encode", "decode", "reconstruct", "denoise", "sample"
	Likelihood  *Likelihood // nil where it was not trained as one
	Limits      Limits
	Provider    string // ONNX Runtime execution provider; empty until loaded
	Metrics     []Metric
}

// Ref returns what names exactly this version in a request.
func (m Model) Ref() string { return fmt.Sprintf("%s:%d", m.Name, m.Version) }

// ImageSpec says which images a model takes and gives.
type ImageSpec struct {
	Channels int // 1 (grey) or 3 (RGB)
	Height   int // pixels
	Width    int // pixels
}

// LatentSpec says what the latents of a model are.
type LatentSpec struct {
	Dim               int    // values per image
	Prior             string // "standard_normal", "gaussian_mixture", or "none" where it cannot sample
	HasLogVariance    bool   // whether Encode returns one and takes a seed
	MixtureComponents int    // of a gaussian_mixture; 0 with another prior
}

// Likelihood is p(x|z), with the decoded image as its mean.
type Likelihood struct {
	Family string  // "gaussian" or "bernoulli"
	Sigma  float64 // standard deviation per pixel of [0, 1] images; 0 unless gaussian
}

// Limits say how much one call may ask of a model.
type Limits struct {
	MaxRequestRows int   // images or latents in one request
	MaxStreamRows  int64 // images in one stream
	MaxBatchRows   int   // rows of one batch of the engine; larger requests run in several
}

// Metric is one figure that was measured when the model was exported.
type Metric struct {
	Name         string
	Value        float64 // in Unit
	Unit         string
	Baseline     *float64 // what the value is to be compared with; nil where there is none
	BaselineName string
	Samples      int64 // images it was measured on
	Estimator    string
}

// ModelList holds all versions of all models, by name, then by version from high to low.
type ModelList struct {
	Models  []Model
	Default string // the name that a request without a model uses; empty where there is none
}

// ReloadOutcome is what became of one version in a reload.
type ReloadOutcome struct {
	Name    string
	Version int
	Action  string // "unchanged", "loaded", "refused" or "removed"
	Reason  string // why it was refused; empty otherwise
}

// Models lists every version of every model, the refused ones too.
func (c *Client) Models(ctx context.Context) (*ModelList, error) {
	return call(ctx, c, c.timeout, c.models.ListModels, &pb.ListModelsRequest{},
		func(reply *pb.ListModelsResponse) (*ModelList, error) {
			list := &ModelList{Default: reply.GetDefaultModel()}
			for _, model := range reply.GetModels() {
				list.Models = append(list.Models, modelFrom(model))
			}
			return list, nil
		})
}

// Model describes one model: "NAME", "NAME:VERSION", or "" for the client's or the server's
// default.
func (c *Client) Model(ctx context.Context, model string) (*Model, error) {
	ref, err := c.ref(model)
	if err != nil {
		return nil, err
	}
	return call(ctx, c, c.timeout, c.models.GetModel, &pb.GetModelRequest{Model: ref},
		func(reply *pb.GetModelResponse) (*Model, error) {
			return new(modelFrom(reply.GetModel())), nil
		})
}

// ReloadModels has the server look at its model folder again, for these names or, without any,
// for all. Has 120 s unless the context or [WithTimeout] gives more, or the context less.
func (c *Client) ReloadModels(ctx context.Context, names ...string) ([]ReloadOutcome, error) {
	request := &pb.ReloadModelsRequest{Names: names}
	return call(ctx, c, max(c.timeout, DefaultReloadTimeout), c.models.ReloadModels, request,
		func(reply *pb.ReloadModelsResponse) ([]ReloadOutcome, error) {
			var outcomes []ReloadOutcome
			for _, o := range reply.GetOutcomes() {
				action := enumName("ACTION_", o.GetAction().String())
				outcomes = append(outcomes, ReloadOutcome{o.GetName(), int(o.GetVersion()), action, o.GetReason()})
			}
			return outcomes, nil
		})
}

func modelFrom(m *pb.Model) Model {
	model := Model{
		Name:        m.GetName(),
		Version:     int(m.GetVersion()),
		State:       enumName("STATE_", m.GetState().String()),
		Reason:      m.GetReason(),
		Digest:      m.GetDigest(),
		Kind:        m.GetKind(),
		Description: m.GetDescription(),
		Image: ImageSpec{
			Channels: int(m.GetImage().GetChannels()),
			Height:   int(m.GetImage().GetHeight()),
			Width:    int(m.GetImage().GetWidth()),
		},
		Latent: LatentSpec{
			Dim:               int(m.GetLatent().GetDim()),
			Prior:             m.GetLatent().GetPrior(),
			HasLogVariance:    m.GetLatent().GetHasLogVariance(),
			MixtureComponents: int(m.GetLatent().GetMixtureComponents()),
		},
		Limits: Limits{
			MaxRequestRows: int(m.GetLimits().GetMaxRequestRows()),
			MaxStreamRows:  m.GetLimits().GetMaxStreamRows(),
			MaxBatchRows:   int(m.GetLimits().GetMaxBatchRows()),
		},
		Provider: m.GetProvider(),
	}
	for _, operation := range m.GetOperations() {
		model.Operations = append(model.Operations, enumName("OPERATION_", operation.String()))
	}
	if likelihood := m.GetLikelihood(); likelihood != nil {
		model.Likelihood = &Likelihood{likelihood.GetFamily(), likelihood.GetSigma()}
	}
	for _, metric := range m.GetMetrics() {
		model.Metrics = append(model.Metrics, Metric{
			Name:         metric.GetName(),
			Value:        metric.GetValue(),
			Unit:         metric.GetUnit(),
			Baseline:     metric.Baseline,
			BaselineName: metric.GetBaselineName(),
			Samples:      metric.GetSamples(),
			Estimator:    metric.GetEstimator(),
		})
	}
	return model
}

// enumName returns "ready" for "STATE_READY", and the number of a value from a newer server.
func enumName(prefix, name string) string {
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}
