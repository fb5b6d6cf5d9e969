package history

import (
	"fmt"
	"os"
	"strconv"
)

// SeedVariable and StepsVariable name what a run under faults is asked for.
const (
	SeedVariable  = "ZONEFORGE_SEED"
	StepsVariable = "ZONEFORGE_STEPS"
)

// Asked are the seeds of the runs that the environment asks for, and the steps of each: one seed with its steps, or those that are fixed.
func Asked(fixedSeeds []int64, fixedSteps, steps int) ([]int64, int, error) {
	seeds := fixedSeeds
	if text := os.Getenv(SeedVariable); text != "" {
		seed, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", SeedVariable, err)
		}
		seeds = []int64{seed}
	} else {
		steps = fixedSteps
	}
	if text := os.Getenv(StepsVariable); text != "" {
		var err error
		if steps, err = strconv.Atoi(text); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", StepsVariable, err)
		}
	}
	return seeds, steps, nil
}

// Again is the command that repeats a run.
func Again(seed int64, steps int, dir, test string) string {
	return fmt.Sprintf("%s=%d %s=%d go test ./%s -run %s -count 1", SeedVariable, seed, StepsVariable, steps, dir, test)
}
