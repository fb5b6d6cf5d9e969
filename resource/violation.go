package resource

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Violation is one thing wrong with a document.
type Violation struct {
	File string
	// Line and Column count from 1; 0 when the resource didn't come from a document.
	Line, Column int
	// Path is the field as the author spelled it, such as spec.conf.http[0].match.
	Path    string
	Message string
	// Hint says how to mend it; it may be empty.
	Hint string
}

// String is file:line:col: path: message (hint), without the parts that are not known.
func (v Violation) String() string {
	var b strings.Builder
	if v.File != "" {
		b.WriteString(v.File + ":")
	}
	if v.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", v.Line, v.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if v.Path != "" {
		b.WriteString(v.Path + ": ")
	}
	b.WriteString(v.Message)
	if v.Hint != "" {
		b.WriteString(" (" + v.Hint + ")")
	}
	return b.String()
}

// Error makes a violation an error, so that errors.As finds it in Batch.Err.
func (v Violation) Error() string { return v.String() }

func compareViolations(a, b Violation) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
		cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message), cmp.Compare(a.Hint, b.Hint))
}

// sortViolations orders by position and drops repetitions, which an alias that is used twice makes.
func sortViolations(vs []Violation) []Violation {
	slices.SortFunc(vs, compareViolations)
	return slices.Compact(vs)
}

func joinViolations(vs []Violation) error {
	errs := make([]error, 0, len(vs))
	for _, v := range vs {
		errs = append(errs, v)
	}
	return errors.Join(errs...)
}

// didYouMean is a hint that names the candidate nearest to word, or "" when none is near.
func didYouMean(word string, candidates []string) string {
	const longest = 64 // words beyond it are no slips of the finger, and the comparison is quadratic
	if word == "" || len(word) > longest {
		return ""
	}
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if len(c) > longest {
			continue
		}
		if d := editDistance(strings.ToLower(word), strings.ToLower(c)); d < bestDistance || d == bestDistance && best != "" && c < best {
			best, bestDistance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// editDistance counts insertions, deletions, replacements and swaps of neighbours.
func editDistance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, prev, cur := rows[0], rows[1], rows[2]
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		rows = [3][]int{prev, cur, before}
	}
	return rows[1][len(b)]
}
