package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/zoneforge/zoneforge/resource"
)

func newValidate(streams Streams) *cobra.Command {
	var paths []string
	cmd := &cobra.Command{
		Use:   "validate -f PATH",
		Short: "Check files of resources offline",
		Long: "Check files of resources offline, each with all its errors: file:line:col: field: what is wrong and how to mend it.\n" +
			"PATH is a file, a directory (read recursively), or - for standard input.\n" +
			"Exits 0 when all is well, 1 when something is wrong, 2 on wrong usage.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			inputs, err := readInputs(streams.In, paths)
			if err != nil {
				return refusal{err}
			}
			return validate(streams, inputs)
		},
	}
	cmd.Flags().StringArrayVarP(&paths, "file", "f", nil, "file, directory or - (may be repeated)")
	if err := cmd.MarkFlagRequired("file"); err != nil {
		panic(err) // the flag is defined one line above
	}
	return cmd
}

// validate prints what the inputs hold and all that is wrong with them.
func validate(streams Streams, inputs []input) error {
	resources, err := decodeInputs(streams.Out, streams.Err, inputs, resource.Options{})
	for _, r := range resources {
		fmt.Fprintf(streams.Out, "%s: %s is valid\n", r.file, r.Key)
	}
	if err != nil {
		return refusal{err}
	}
	return nil
}

// located is a resource with the file it stands in.
type located struct {
	*resource.Resource
	file string
}

// decodeInputs decodes files, prints their notes to notes and all that is wrong with them to errs, and fails where
// anything is, or where there is no resource at all. The resources of files without a violation are returned in any case. A
// key that stands in two files is wrong too, since one change could not hold both.
func decodeInputs(notes, errs io.Writer, inputs []input, opt resource.Options) ([]located, error) {
	var out []located
	violations := 0
	first := map[resource.Key]string{}
	for _, in := range inputs {
		batch := resource.Decode(in.name, in.data, opt)
		for _, note := range batch.Notes {
			fmt.Fprintln(notes, note)
		}
		for _, v := range batch.Violations {
			fmt.Fprintln(errs, v)
		}
		violations += len(batch.Violations)
		for _, r := range batch.Resources {
			if other, dup := first[r.Key]; dup && other != in.name {
				fmt.Fprintf(errs, "%s: %s stands in %s too (keep one of them)\n", in.name, r.Key, other)
				violations++
				continue
			}
			first[r.Key] = in.name
			if len(batch.Violations) == 0 {
				out = append(out, located{r, in.name})
			}
		}
	}
	if violations > 0 {
		fmt.Fprintf(errs, "%d to mend\n", violations)
		return out, errReported
	}
	if len(out) == 0 {
		return nil, errors.New("the files hold no resource of zoneforge")
	}
	return out, nil
}
