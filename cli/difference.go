package cli

import "strings"

const (
	// context is how many equal lines are shown around those that differ.
	contextLines = 2
	// maxCells bounds the comparison, which is quadratic; longer texts are shown whole, old then new.
	maxCells = 4 << 20
)

// difference gives the lines of two texts with -, + or a space before them, and … where equal ones are left out.
func difference(before, after string) string {
	old, now := lines(before), lines(after)
	type line struct {
		mark byte
		text string
	}
	var all []line
	if len(old)*len(now) > maxCells {
		for _, l := range old {
			all = append(all, line{'-', l})
		}
		for _, l := range now {
			all = append(all, line{'+', l})
		}
	} else {
		// common[i][j] is the length of the longest common subsequence of old[i:] and now[j:].
		common := make([][]int, len(old)+1)
		for i := range common {
			common[i] = make([]int, len(now)+1)
		}
		for i := len(old) - 1; i >= 0; i-- {
			for j := len(now) - 1; j >= 0; j-- {
				if old[i] == now[j] {
					common[i][j] = common[i+1][j+1] + 1
				} else {
					common[i][j] = max(common[i+1][j], common[i][j+1])
				}
			}
		}
		i, j := 0, 0
		for i < len(old) || j < len(now) {
			switch {
			case i < len(old) && j < len(now) && old[i] == now[j]:
				all = append(all, line{' ', old[i]})
				i, j = i+1, j+1
			case j == len(now) || i < len(old) && common[i+1][j] >= common[i][j+1]:
				all = append(all, line{'-', old[i]})
				i++
			default:
				all = append(all, line{'+', now[j]})
				j++
			}
		}
	}
	near := func(at int) bool {
		for k := max(0, at-contextLines); k <= min(len(all)-1, at+contextLines); k++ {
			if all[k].mark != ' ' {
				return true
			}
		}
		return false
	}
	var b strings.Builder
	skipped := false
	for k, l := range all {
		if !near(k) {
			skipped = true
			continue
		}
		if skipped {
			b.WriteString("  …\n")
			skipped = false
		}
		b.WriteByte(l.mark)
		b.WriteString(" " + l.text + "\n")
	}
	if skipped {
		b.WriteString("  …\n")
	}
	return b.String()
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
