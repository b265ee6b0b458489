package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	latentserve "github.com/latentserve/latentserve/clients/go"
)

type expectedError struct {
	Code         string            `json:"code"`
	Codes        []string          `json:"codes"`
	Reason       *string           `json:"reason"`
	Domain       string            `json:"domain"`
	Violations   []string          `json:"violations"`
	RetryInfo    bool              `json:"retry_info"`
	MetadataKeys []string          `json:"metadata_keys"`
	Metadata     map[string]string `json:"metadata"`
	MessageLacks []string          `json:"message_lacks"`
}

// checkFailure returns an error if a failure differs from the expectation of its case.
func checkFailure(test *testCase, failure *latentserve.Error, trailers metadata.MD) error {
	expected := test.Expect.Error
	if expected == nil {
		return failure
	}
	codes := expected.Codes
	if codes == nil {
		codes = []string{expected.Code}
	}
	code := codeName(failure)
	if !slices.Contains(codes, code) {
		return fmt.Errorf("the code is %s (%s), expected %s", code, failure.Message, strings.Join(codes, " or "))
	}
	// The client replaces an empty message, so check the message of the status.
	message := failure.Message
	if cause := failure.Unwrap(); cause != nil {
		message = status.Convert(cause).Message()
	}
	mayBeEmpty := code == "CANCELLED" || code == "DEADLINE_EXCEEDED" || strings.HasPrefix(test.RPC, "grpc.health.")
	if message == "" && !mayBeEmpty {
		return fmt.Errorf("the error has no message")
	}
	if expected.Reason == nil {
		return nil
	}
	if failure.Reason != *expected.Reason || failure.Domain != expected.Domain {
		return fmt.Errorf("reason and domain are %q and %q, expected %q and %q", failure.Reason, failure.Domain, *expected.Reason, expected.Domain)
	}
	var fields []string
	for _, violation := range failure.Violations {
		if violation.Description == "" {
			return fmt.Errorf("the violation of %s has no description", violation.Field)
		}
		fields = append(fields, violation.Field)
	}
	if !slices.Equal(fields, expected.Violations) {
		return fmt.Errorf("violations are %q, expected %q", fields, expected.Violations)
	}
	for _, key := range expected.MetadataKeys {
		if failure.Metadata[key] == "" {
			return fmt.Errorf("the error's metadata has no %s: %v", key, failure.Metadata)
		}
	}
	for key, value := range expected.Metadata {
		if failure.Metadata[key] != value {
			return fmt.Errorf("metadata[%s] is %q, expected %q", key, failure.Metadata[key], value)
		}
	}
	for _, text := range expected.MessageLacks {
		if strings.Contains(failure.Message, text) {
			return fmt.Errorf("the message contains %q: %s", text, failure.Message)
		}
	}
	return checkRetry(test, failure, trailers)
}

func checkRetry(test *testCase, failure *latentserve.Error, trailers metadata.MD) error {
	if (failure.RetryAfter > 0) != test.Expect.Error.RetryInfo {
		return fmt.Errorf("the delay of RetryInfo is %v, expected a delay: %v", failure.RetryAfter, test.Expect.Error.RetryInfo)
	}
	if test.Through != "stub" {
		return nil
	}
	var wanted []string
	if test.Expect.Error.RetryInfo {
		wanted = []string{strconv.FormatInt(failure.RetryAfter.Milliseconds(), 10)}
	}
	if got := trailers.Get("grpc-retry-pushback-ms"); !slices.Equal(got, wanted) {
		return fmt.Errorf("grpc-retry-pushback-ms is %q, expected %q", got, wanted)
	}
	return nil
}

// codeName returns the name of a code in the gRPC specification.
func codeName(failure *latentserve.Error) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(failure.Error(), "latentserve: "), ":")
	return name
}
