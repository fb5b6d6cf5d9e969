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
