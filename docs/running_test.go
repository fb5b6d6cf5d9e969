package docs_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each command that a page shows is one that the program has, with the flags that are shown.
func TestCommandsAreThere(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "zoneforge")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/zoneforge").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	word, flag := regexp.MustCompile(`^[a-z][a-z-]*$`), regexp.MustCompile(`^--?[a-z][a-z-]*`)
	tried := 0
	for _, page := range []string{"running.md", "../README.md"} {
		for _, line := range commands(read(t, page)) {
			var path, flags []string
			for i, part := range strings.Fields(line)[1:] {
				switch {
				case flag.MatchString(part):
					flags = append(flags, flag.FindString(part))
				case len(flags) == 0 && i < 2 && word.MatchString(part):
					path = append(path, part)
				}
			}
			tried++
			help, ok := helpOf(binary, path)
			if !ok {
				t.Errorf("%s: zoneforge has no command %v: %s", page, path, line)
				continue
			}
			for _, f := range flags {
				if !regexp.MustCompile(`(?m)(^|[ ,])` + regexp.QuoteMeta(f) + `([ ,=]|$)`).MatchString(help) {
					t.Errorf("%s: zoneforge %s has no flag %s: %s", page, strings.Join(path, " "), f, line)
				}
			}
		}
	}
	if tried == 0 {
		t.Error("no command found")
	}
}

// helpOf gives the help of a command: the last word may be an argument of the one before.
func helpOf(binary string, path []string) (string, bool) {
	for n := len(path); n > 0 && n >= len(path)-1; n-- {
		out, err := exec.Command(binary, append(path[:n:n], "--help")...).Output()
		usage := regexp.MustCompile(`(?m)^  zoneforge ` + strings.Join(path[:n], " ") + `( |$)`)
		if err == nil && usage.Match(out) {
			return string(out), true
		}
	}
	return "", false
}

// commands are the lines of code blocks that begin with the program, continued lines joined.
func commands(page string) []string {
	var out []string
	for i, block := range strings.Split(page, "```") {
		if i%2 == 0 {
			continue
		}
		for line := range strings.Lines(strings.ReplaceAll(block, "\\\n", " ")) {
			for _, start := range []string{"zoneforge ", "bin/zoneforge "} {
				if rest, ok := strings.CutPrefix(strings.TrimSpace(line), start); ok {
					rest, _, _ = strings.Cut(rest, " >")
					rest, _, _ = strings.Cut(rest, " &")
					out = append(out, start+rest)
				}
			}
		}
	}
	return out
}
