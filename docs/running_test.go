package docs_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// program builds the program, whose help is the truth about its commands.
func program(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "zoneforge")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/zoneforge").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// cli.md lists each command that does something, and no other.
func TestCommandsAreListed(t *testing.T) {
	binary, page := program(t), read(t, "cli.md")
	there := map[string]bool{}
	var walk func(path ...string)
	walk = func(path ...string) {
		out, err := exec.Command(binary, append(slices.Clone(path), "--help")...).Output()
		if err != nil {
			t.Fatalf("zoneforge %v --help: %v", path, err)
		}
		_, list, more := strings.Cut(string(out), "Available Commands:\n")
		if !more {
			there[strings.Join(path, " ")] = true
			return
		}
		list, _, _ = strings.Cut(list, "\n\n")
		for line := range strings.Lines(list) {
			if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); name != "help" {
				walk(append(slices.Clone(path), name)...)
			}
		}
	}
	walk()
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `zoneforge ([a-z -]+)` \\|").FindAllStringSubmatch(page, -1) {
		listed[m[1]] = true
		if !there[m[1]] {
			t.Errorf("cli.md lists %s, which the program doesn't have", m[1])
		}
	}
	for command := range there {
		if shell, ok := strings.CutPrefix(command, "completion "); ok && strings.Contains(page, shell) {
			continue
		}
		if !listed[command] {
			t.Errorf("cli.md doesn't list %s", command)
		}
	}
}

// Each command that a page shows is one that the program has, with the flags that are shown.
func TestCommandsAreThere(t *testing.T) {
	binary := program(t)
	word, flag := regexp.MustCompile(`^[a-z][a-z-]*$`), regexp.MustCompile(`^--?[a-z][a-z-]*`)
	tried := 0
	for _, page := range []string{"running.md", "cli.md", "../README.md"} {
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
