package cli

import (
	"errors"
	"fmt"

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

// validate prints what the inputs hold and all that is wrong with them. A key that stands in two files is wrong too,
// since one apply could not hold both.
func validate(streams Streams, inputs []input) error {
	violations, resources := 0, 0
	first := map[resource.Key]string{}
	for _, in := range inputs {
		batch := resource.Decode(in.name, in.data, resource.Options{})
		for _, note := range batch.Notes {
			fmt.Fprintln(streams.Out, note)
		}
		for _, v := range batch.Violations {
			fmt.Fprintln(streams.Err, v)
		}
		violations += len(batch.Violations)
		for _, r := range batch.Resources {
			if other, dup := first[r.Key]; dup && other != in.name {
				fmt.Fprintf(streams.Err, "%s: %s stands in %s too (keep one of them)\n", in.name, r.Key, other)
				violations++
				continue
			}
			first[r.Key] = in.name
			resources++
			if len(batch.Violations) == 0 {
				fmt.Fprintf(streams.Out, "%s: %s is valid\n", in.name, r.Key)
			}
		}
	}
	if violations > 0 {
		fmt.Fprintf(streams.Err, "%d to mend\n", violations)
		return refusal{errReported}
	}
	if resources == 0 {
		return refusal{errors.New("the files hold no resource of zoneforge")}
	}
	return nil
}
