package latentserve

import (
	"context"
	"fmt"
	"strings"

	pb "github.com/latentserve/latentserve/clients/go/latentservev1"
)

// Model describes one version of a model.
type Model struct {
	Name        string
	Version     int
	State       string // "ready", "loading" or "refused"
	Reason      string // why the version was refused; empty otherwise
	Digest      string // SHA-256 of the manifest
	Kind        string // kind of the model, for example "autoencoder", "denoising" or "vae"
	Description string // description in one sentence
	Image       ImageSpec
	Latent      LatentSpec
	Operations  []string    // a subset of "encode", "decode", "reconstruct", "denoise", "sample"
	Likelihood  *Likelihood // nil if the model was not trained with a likelihood
	Limits      Limits
	Provider    string // ONNX Runtime execution provider; empty until the model is loaded
	Metrics     []Metric
}

// Ref returns "NAME:VERSION", which selects exactly this version in a request.
func (m Model) Ref() string { return fmt.Sprintf("%s:%d", m.Name, m.Version) }

// ImageSpec is the image shape of a model.
type ImageSpec struct {
	Channels int // 1 (greyscale) or 3 (RGB)
	Height   int // pixels
	Width    int // pixels
}

// LatentSpec describes the latent space of a model.
type LatentSpec struct {
	Dim               int    // number of latents per image
	Prior             string // "standard_normal", "gaussian_mixture", or "none" if the model cannot sample
	HasLogVariance    bool   // whether Encode returns a log variance and accepts a seed
	MixtureComponents int    // components of a gaussian_mixture; 0 for other priors
}

// Likelihood is p(x|z), whose mean is the decoded image.
type Likelihood struct {
	Family string  // "gaussian" or "bernoulli"
	Sigma  float64 // standard deviation per pixel of images in [0, 1]; 0 unless gaussian
}

// Limits are the limits of one call to a model.
type Limits struct {
	MaxRequestRows int   // maximum images or latent vectors in one request
	MaxStreamRows  int64 // maximum images in one stream
	MaxBatchRows   int   // maximum batch size in rows; larger requests run in several batches
}

// Metric is a metric of a model, measured at export.
type Metric struct {
	Name         string
	Value        float64 // in Unit
	Unit         string
	Baseline     *float64 // comparison value; nil if there is none
	BaselineName string
	Samples      int64 // number of images in the evaluation
	Estimator    string
}

// ModelList holds all versions of all models, sorted by name, then by version in descending order.
type ModelList struct {
	Models  []Model
	Default string // the model of requests that name none; empty if the server has no default
}

// ReloadOutcome is the result of a reload for one version.
type ReloadOutcome struct {
	Name    string
	Version int
	Action  string // "unchanged", "loaded", "refused" or "removed"
	Reason  string // why the version was refused; empty otherwise
}

// Models lists every version of every model, including refused ones.
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
// default model.
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

// ReloadModels makes the server rescan its model folder for these names or, without names, for all
// models. The timeout is 120 s, unless [WithTimeout] sets more or the context has a deadline.
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

// enumName returns "ready" for "STATE_READY"; for a value of a newer server, its number.
func enumName(prefix, name string) string {
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}
