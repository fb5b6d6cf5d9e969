package main

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"github.com/zoneforge/zoneforge/config"
)

// processes are what has settings, in the order of the page.
var processes = []struct {
	title, about string
	settings     any
}{
	{"zoneforge global run", "", config.Global{}},
	{"zoneforge zone run", "", config.Zone{}},
	{"zoneforge dataplane run", "", config.Dataplane{}},
	{"The command line's client", "What the verbs that talk to global are told. The file is `client.yaml` in the user's folder of zoneforge, or what\n" +
		"`--client-config` or `ZONEFORGE_CLIENT_CONFIG` names.\n\n", config.Client{}},
}

// settings makes the page of the settings from the structs of package config.
func settings() []byte {
	var b bytes.Buffer
	b.WriteString("# Settings\n\n<!-- Generated from package config by `make docs`: edit that. -->\n" + `
A setting has one name everywhere: ` + "`data-dir` is `--data-dir` as a flag, `ZONEFORGE_DATA_DIR` in the environment, and `data-dir:`" + ` in the
YAML file that ` + "`--config` or `ZONEFORGE_CONFIG`" + ` names. A flag beats a variable, a variable beats the file, the file beats the default. The
file is read strictly: an unknown setting or a wrong type is an error with its line. Durations are written as ` + "`500ms`, `30s`, `24h`" + `, lists
with commas between, or as lists in the file.
`)
	for _, p := range processes {
		fmt.Fprintf(&b, "\n## %s\n\n%s| Setting | Default | What it says |\n|---|---|---|\n", p.title, p.about)
		rows(&b, reflect.TypeOf(p.settings))
	}
	return b.Bytes()
}

func rows(b *bytes.Buffer, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			rows(b, f.Type)
			continue
		}
		standard, usage := f.Tag.Get("default"), f.Tag.Get("usage")
		switch {
		case standard != "":
			standard = "`" + standard + "`"
		case f.Tag.Get("required") == "true":
			standard = "required"
		case f.Type.Kind() == reflect.Bool:
			standard = "`false`"
		default:
			standard = fallback(usage)
		}
		if one := f.Tag.Get("oneof"); one != "" {
			usage += ": `" + strings.ReplaceAll(one, "|", "`, `") + "`"
		}
		if f.Tag.Get("flag") == "no" {
			usage += "; no flag, as others could read it on the command line"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.Tag.Get("name"), standard, strings.ReplaceAll(usage, "|", `\|`))
	}
}
