// Command conformance is the conformance runner of the Go client; see clients/conformance/README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	latentserve "github.com/latentserve/latentserve/clients/go"
)

const caseLimit = 60 * time.Second

type counts struct {
	Passed int `json:"passed"`
	Failed int `json:"failed"`
}

type outcome struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	Reason string `json:"reason"`
}

type report struct {
	Language string `json:"language"`
	counts
	Groups map[string]*counts `json:"groups"`
	Cases  []outcome          `json:"cases"`
}

func main() {
	cases := flag.String("cases", "", "folder of the cases")
	servers := flag.String("servers", "", "JSON file with the addresses of the servers")
	groups := flag.String("groups", "", "groups of cases, separated by commas; all if empty")
	path := flag.String("report", "", "JSON file for the report")
	flag.Parse()
	result, err := run(caseFolder(*cases), *servers, *groups)
	if err == nil && *path != "" {
		err = result.write(*path)
	}
	if err != nil {
		log.Print(err)
		os.Exit(2)
	}
	fmt.Printf("%d passed, %d failed\n", result.Passed, result.Failed)
	if result.Failed > 0 {
		os.Exit(1)
	}
}

func run(folder caseFolder, servers, groups string) (*report, error) {
	var wanted []string
	if groups != "" {
		wanted = strings.Split(groups, ",")
	}
	cases, err := folder.read(wanted)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(servers)
	if err != nil {
		return nil, err
	}
	var addresses struct {
		Servers map[string]string `json:"servers"`
	}
	if err := json.Unmarshal(text, &addresses); err != nil {
		return nil, fmt.Errorf("%s: %w", servers, err)
	}
	c := &caller{addresses: addresses.Servers, folder: folder, clients: map[string]*latentserve.Client{}}
	defer func() {
		for _, client := range c.clients {
			_ = client.Close()
		}
	}()
	result := &report{Language: "go", Groups: map[string]*counts{}, Cases: []outcome{}}
	for _, test := range cases {
		err := guarded(func() error { return c.try(test) })
		if err != nil {
			fmt.Printf("FAILED %s: %v\n", test.Name, err)
		}
		result.add(test, err)
	}
	return result, nil
}

// try executes the call of a case and checks the result.
func (c *caller) try(test *testCase) error {
	c.trailers = metadata.MD{}
	got, err := c.call(context.Background(), test)
	if err == nil {
		return c.folder.check(test, got)
	}
	if failure, ok := errors.AsType[*latentserve.Error](err); ok {
		return checkFailure(test, failure, c.trailers)
	}
	return err // an error of the runner
}

// guarded runs one case so that a panic or a hang fails only this case.
func guarded(try func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if problem := recover(); problem != nil {
				done <- fmt.Errorf("panic: %v", problem)
			}
		}()
		done <- try()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(caseLimit):
		return fmt.Errorf("the case did not finish within %v", caseLimit)
	}
}

func (r *report) add(test *testCase, err error) {
	group := r.Groups[test.group()]
	if group == nil {
		group = &counts{}
		r.Groups[test.group()] = group
	}
	entry := outcome{Name: test.Name, Passed: err == nil}
	if err == nil {
		group.Passed++
		r.Passed++
	} else {
		entry.Reason = err.Error()
		group.Failed++
		r.Failed++
	}
	r.Cases = append(r.Cases, entry)
}

func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
