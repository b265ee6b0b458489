package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	latentserve "github.com/latentserve/latentserve/clients/go"
)

type object = map[string]any

// checkValue checks a reply of ModelService or health.
func checkValue(got any, expected map[string]json.RawMessage) error {
	switch got := got.(type) {
	case latentserve.HealthStatus:
		return same("status", string(got), expected["status"])
	case *latentserve.Model:
		return given(object{"model": describe(*got)}, expected)
	case []latentserve.ReloadOutcome:
		var outcomes []object
		for _, o := range got {
			outcomes = append(outcomes, object{
				"name": o.Name, "version": o.Version, "action": strings.ToUpper(o.Action), "reason": o.Reason,
			})
		}
		return same("outcomes", outcomes, expected["outcomes"])
	case *latentserve.ModelList:
		var wanted []map[string]json.RawMessage
		if err := json.Unmarshal(expected["models"], &wanted); err != nil {
			return err
		}
		if len(got.Models) != len(wanted) {
			return fmt.Errorf("%d models, expected %d", len(got.Models), len(wanted))
		}
		for i, model := range got.Models {
			if err := given(describe(model), wanted[i]); err != nil {
				return fmt.Errorf("%s: %w", model.Name, err)
			}
		}
		return same("default_model", got.Default, expected["default_model"])
	default:
		return fmt.Errorf("this runner does not know a %T", got)
	}
}

// describe returns a model as JSON with the names of the .proto files.
func describe(m latentserve.Model) object {
	var operations []string
	for _, operation := range m.Operations {
		operations = append(operations, strings.ToUpper(operation))
	}
	slices.SortFunc(m.Metrics, func(a, b latentserve.Metric) int { return strings.Compare(a.Name, b.Name) })
	var metrics []object
	for _, metric := range m.Metrics {
		metrics = append(metrics, object{
			"name": metric.Name, "value": metric.Value, "unit": metric.Unit, "baseline": metric.Baseline,
			"baseline_name": metric.BaselineName, "samples": metric.Samples, "estimator": metric.Estimator,
		})
	}
	var likelihood any
	if m.Likelihood != nil {
		likelihood = object{"family": m.Likelihood.Family, "sigma": m.Likelihood.Sigma}
	}
	return object{
		"name": m.Name, "version": m.Version, "state": strings.ToUpper(m.State), "reason": m.Reason,
		"digest": m.Digest, "kind": m.Kind, "description": m.Description,
		"image": object{"channels": m.Image.Channels, "height": m.Image.Height, "width": m.Image.Width},
		"latent": object{
			"dim": m.Latent.Dim, "prior": m.Latent.Prior, "has_log_variance": m.Latent.HasLogVariance,
			"mixture_components": m.Latent.MixtureComponents,
		},
		"operations": operations, "likelihood": likelihood,
		"limits": object{
			"max_request_rows": m.Limits.MaxRequestRows, "max_stream_rows": m.Limits.MaxStreamRows,
			"max_batch_rows": m.Limits.MaxBatchRows,
		},
		"provider": m.Provider, "metrics": metrics,
	}
}

// given compares only the expected fields.
func given(got object, expected map[string]json.RawMessage) error {
	for key, wanted := range expected {
		value, ok := got[key]
		if !ok {
			return fmt.Errorf("this runner does not know %q", key)
		}
		if inner, ok := value.(object); ok && key == "model" {
			var fields map[string]json.RawMessage
			if err := json.Unmarshal(wanted, &fields); err != nil {
				return err
			}
			if err := given(inner, fields); err != nil {
				return err
			}
		} else if err := same(key, value, wanted); err != nil {
			return err
		}
	}
	return nil
}

// same compares a value, as JSON, with the expected JSON.
func same(name string, got any, expected json.RawMessage) error {
	text, err := json.Marshal(got)
	if err != nil {
		return err
	}
	var have, wanted any
	if err := json.Unmarshal(text, &have); err != nil {
		return err
	}
	if err := json.Unmarshal(expected, &wanted); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	// A nil slice is equal to an empty list.
	if list, ok := wanted.([]any); ok && len(list) == 0 && have == nil {
		return nil
	}
	if !reflect.DeepEqual(have, wanted) {
		return fmt.Errorf("%s is %s, expected %s", name, text, expected)
	}
	return nil
}
