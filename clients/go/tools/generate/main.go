// Command generate writes the Go code of the .proto files, or with -check compares it with the
// committed code. It requires only Go: it compiles the .proto files itself and uses the plugins that
// tools/go.mod pins.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	module    = "github.com/latentserve/latentserve/clients/go"
	goPackage = module + "/latentservev1"
	pattern   = "latentserve/v1/*.proto"
)

func main() {
	protos := flag.String("proto", "", "folder of the .proto files")
	out := flag.String("out", "", "folder of the module that receives the code")
	plugins := flag.String("plugins", "", "folder of protoc-gen-go and protoc-gen-go-grpc")
	check := flag.Bool("check", false, "compare without writing")
	flag.Parse()
	if err := run(*protos, *out, *plugins, *check); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(protos, out, plugins string, check bool) error {
	request, err := compile(protos)
	if err != nil {
		return err
	}
	generated := map[string]string{}
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		files, err := call(filepath.Join(plugins, plugin), request)
		if err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
		for _, file := range files {
			generated[file.GetName()] = file.GetContent()
		}
	}
	if check {
		return compare(out, generated)
	}
	for name, content := range generated {
		path := filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compile returns the input that protoc passes to a plugin.
func compile(protos string) (*pluginpb.CodeGeneratorRequest, error) {
	paths, err := filepath.Glob(filepath.Join(protos, pattern))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no files match %s in %q", pattern, protos)
	}
	parameters := []string{"module=" + module}
	var names []string
	for _, path := range paths {
		name, err := filepath.Rel(protos, path)
		if err != nil {
			return nil, err
		}
		names = append(names, filepath.ToSlash(name))
		// The .proto files have no go_package option; this is the import path of the module.
		parameters = append(parameters, "M"+filepath.ToSlash(name)+"="+goPackage)
	}
	compiler := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{protos}},
		SourceInfoMode: protocompile.SourceInfoStandard, // the comments become documentation
	}
	files, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: names,
		Parameter:      proto.String(strings.Join(parameters, ",")),
	}
	// Plugins require every file after its imports.
	seen := map[string]bool{}
	var add func(file protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		request.ProtoFile = append(request.ProtoFile, protoutil.ProtoFromFileDescriptor(file))
	}
	for _, file := range files {
		add(file)
	}
	return request, nil
}

func call(plugin string, request *pluginpb.CodeGeneratorRequest) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	input, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	command := exec.Command(plugin)
	command.Stdin = bytes.NewReader(input)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return nil, err
	}
	response := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(output, response); err != nil {
		return nil, err
	}
	if response.Error != nil {
		return nil, errors.New(response.GetError())
	}
	return response.GetFile(), nil
}

func compare(out string, generated map[string]string) error {
	var stale []string
	for name, content := range generated {
		committed, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || string(committed) != content {
			stale = append(stale, name)
		}
	}
	existing, err := filepath.Glob(filepath.Join(out, "latentservev1", "*.pb.go"))
	if err != nil {
		return err
	}
	for _, path := range existing {
		name := filepath.ToSlash(filepath.Join("latentservev1", filepath.Base(path)))
		if _, ok := generated[name]; !ok {
			stale = append(stale, name)
		}
	}
	if len(stale) > 0 {
		return fmt.Errorf("the generated code differs from proto/: %s; run: make generate", strings.Join(stale, ", "))
	}
	return nil
}
