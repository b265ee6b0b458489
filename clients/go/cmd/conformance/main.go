// Command conformance runs the cases of clients/conformance through the Go client.
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
	servers := flag.String("servers", "", "JSON file of the servers' addresses")
	groups := flag.String("groups", "", "only these groups, separated by commas")
	path := flag.String("report", "", "file to write a report into")
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

// try makes the call of a case and compares.
func (c *caller) try(test *testCase) error {
	c.trailers = metadata.MD{}
	got, err := c.call(context.Background(), test)
	if err == nil {
		return c.folder.check(test, got)
	}
	if failure, ok := errors.AsType[*latentserve.Error](err); ok {
		return checkFailure(test, failure, c.trailers)
	}
	return err // the runner's own
}

// guarded lets nothing that goes wrong in one case reach the next.
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
		return fmt.Errorf("not done after %v", caseLimit)
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
