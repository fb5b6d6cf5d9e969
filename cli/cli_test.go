package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/resource"
)

const examples = "../deploy/examples"

func run(t *testing.T, stdin string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(context.Background(), Streams{In: strings.NewReader(stdin), Out: &o, Err: &e}, args)
	return code, o.String(), e.String()
}

func TestEveryUserKindHasAnExampleThatIsValid(t *testing.T) {
	code, out, errs := run(t, "", "validate", "-f", examples)
	if code != ExitDone {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	for _, kind := range resource.Kinds() {
		if kind.Writer != resource.WriterSystem && !strings.Contains(out, ": "+kind.Name+" ") {
			t.Errorf("no example of %s in deploy/examples", kind.Name)
		}
	}
}

func TestValidateNamesPlaceAndMend(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(examples, "mesh-gateway-route.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	broken := strings.Replace(string(data), "weight: 90", "wieght: 90", 1)
	line := strings.Count(broken[:strings.Index(broken, "wieght")], "\n") + 1
	code, _, errs := run(t, broken, "validate", "-f", "-")
	if code != ExitRefused {
		t.Fatalf("exit %d, want %d", code, ExitRefused)
	}
	for _, want := range []string{"<stdin>:" + strconv.Itoa(line) + ":13:", "wieght", "weight"} {
		if !strings.Contains(errs, want) {
			t.Errorf("no %q in %q", want, errs)
		}
	}
}

func TestValidateFindsAKeyInTwoFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.yaml", "b.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("type: Zone\nname: east\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, _, errs := run(t, "", "validate", "-f", dir)
	if code != ExitRefused || !strings.Contains(errs, "Zone east stands in") {
		t.Errorf("exit %d, %q", code, errs)
	}
}

func TestExitCodes(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
		want int
	}{
		{"version", []string{"version"}, ExitDone},
		{"help", nil, ExitDone},
		{"no file", []string{"validate"}, ExitUsage},
		{"unknown flag", []string{"validate", "--wat"}, ExitUsage},
		{"unknown command", []string{"wat"}, ExitUsage},
		{"missing file", []string{"validate", "-f", filepath.Join(empty, "none")}, ExitRefused},
		{"empty directory", []string{"validate", "-f", empty}, ExitRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, out, errs := run(t, "", c.args...); got != c.want {
				t.Errorf("exit %d, want %d\n%s%s", got, c.want, out, errs)
			}
		})
	}
}
