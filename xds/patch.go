package xds

import (
	"errors"
	"fmt"
	"regexp"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/ir"
)

// maxCopied bounds what the copies of one patch may add to a resource, in bytes.
const maxCopied = 1 << 20

// patch changes the JSON form of the resources that match.
func (e *editor) patch(p *ir.Patch) error {
	name := func(string) bool { return true }
	switch {
	case p.Name != "":
		name = func(s string) bool { return s == p.Name }
	case p.NameRegex != "":
		re, err := regexp.Compile("^(?:" + p.NameRegex + ")$")
		if err != nil {
			return fmt.Errorf("name: %w", err)
		}
		name = re.MatchString
	}
	apply, err := patcher(p)
	if err != nil {
		return err
	}
	switch p.Type {
	case ir.PatchListener:
		return patchEach(e.listeners, p, name, apply)
	case ir.PatchRoute:
		return patchEach(e.routes, p, name, apply)
	case ir.PatchCluster:
		return patchEach(e.clusters, p, name, apply)
	case ir.PatchExtension:
		return patchEach(e.extensions, p, name, apply)
	}
	return fmt.Errorf("type %q is not known", p.Type)
}

func patcher(p *ir.Patch) (func([]byte) ([]byte, error), error) {
	if p.Merge != "" {
		return func(document []byte) ([]byte, error) { return jsonpatch.MergePatch(document, []byte(p.Merge)) }, nil
	}
	operations, err := jsonpatch.DecodePatch([]byte(p.Operations))
	if err != nil {
		return nil, err
	}
	options := jsonpatch.NewApplyOptions()
	options.AccumulatedCopySizeLimit = maxCopied
	return func(document []byte) ([]byte, error) { return operations.ApplyWithOptions(document, options) }, nil
}

func patchEach[M validated](list []*edited[M], p *ir.Patch, name func(string) bool, apply func([]byte) ([]byte, error)) error {
	var errs []error
	for _, one := range list {
		if !name(one.name) || p.Origin != "" && p.Origin != one.origin {
			continue
		}
		document, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(one.message)
		if err == nil {
			document, err = apply(document)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", p.Type, one.name, tidy(err)))
			continue
		}
		next := proto.CloneOf(one.message)
		proto.Reset(next)
		if err := parse(string(document), next); err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", p.Type, one.name, err))
			continue
		}
		one.message, one.changed = next, true
	}
	return errors.Join(errs...)
}
