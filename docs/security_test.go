package docs_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that security.md names is there. A name without a package is of the one named before it.
func TestSecurityIsHeld(t *testing.T) {
	named := regexp.MustCompile("`(?:([a-z][a-z/]*): )?((?:Test|Fuzz)[A-Za-z0-9]+)`")
	page := read(t, "security.md")
	tests, folder := map[string]string{}, ""
	found := named.FindAllStringSubmatch(page, -1)
	if len(found) < 30 {
		t.Fatalf("only %d tests are named", len(found))
	}
	for _, m := range found {
		if m[1] != "" {
			folder = m[1]
		}
		if tests[folder] == "" {
			paths, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				tests[folder] += read(t, path)
			}
		}
		if !strings.Contains(tests[folder], "\nfunc "+m[2]+"(") {
			t.Errorf("%s holds no test %s", folder, m[2])
		}
	}
}

// Each threat that security.md names has a test that tries it.
func TestEveryThreatIsTried(t *testing.T) {
	_, section, found := strings.Cut(read(t, "security.md"), "\n## Threats\n")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatal("security.md has no section of threats")
	}
	tried := regexp.MustCompile("^`[a-z0-9/]+: (?:Test|Fuzz)[A-Za-z0-9]+`(, `(?:[a-z0-9/]+: )?(?:Test|Fuzz)[A-Za-z0-9]+`)*$")
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 2 || strings.HasPrefix(cells[1], "-") || strings.TrimSpace(cells[1]) == "Whoever has" {
			continue
		}
		if rows++; len(cells) != 6 || !tried.MatchString(strings.TrimSpace(cells[4])) {
			t.Errorf("a threat without its test: %s", line)
		}
	}
	if rows < 15 {
		t.Errorf("only %d threats are named", rows)
	}
}
