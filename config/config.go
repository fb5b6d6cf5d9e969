// Package config owns the typed settings of the processes and of the command line's client: their names, defaults and
// documentation, and how a file, ZONEFORGE_* variables and flags become one of the structs here.
//
// A setting has one name everywhere: data-dir is data-dir in the file, --data-dir as a flag and ZONEFORGE_DATA_DIR in the
// environment. A flag beats a variable, a variable beats the file, the file beats the default. It never opens what a
// setting names, starts nothing, and imports nothing of zoneforge: the structs are plain and cmd hands them on. It is the
// only user of viper.
package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// EnvPrefix begins the name of each variable.
const EnvPrefix = "ZONEFORGE_"

// fileFlag names the flag and variable that name the file.
const fileFlag = "config"

// ErrInvalid says that settings cannot be used; the words say which, where they stand and how to mend them.
var ErrInvalid = errors.New("invalid configuration")

// Redacted stands in for a secret wherever settings are printed.
const Redacted = "[redacted]"

// Secret is a text that no formatter or marshaller shows. Convert it with string() where it is used.
type Secret string

// String is Redacted, or nothing for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return Redacted
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText hides the secret from JSON, YAML and loggers.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// setting is one field of a struct of settings. Its tags are:
//
//	name      as in the file and the flag
//	default   in the spelling of a flag
//	usage     one line
//	required  "true" when it must not end up empty
//	flag      "no" for secrets, which other users of a machine could read on the command line
//	oneof     the values that a text may have, parted by |
type setting struct {
	name, standard, usage string
	required, noFlag      bool
	oneof                 []string
	value                 reflect.Value
}

func (s setting) env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// places tells a reader where to set it.
func (s setting) places() string {
	if s.noFlag {
		return fmt.Sprintf("set %s, or %s in the file", s.env(), s.name)
	}
	return fmt.Sprintf("set --%s, %s, or %s in the file", s.name, s.env(), s.name)
}

// settings lists the fields of the struct that target points at, in their order; an embedded struct's stand in its place.
func settings(target any) []setting {
	return fieldsOf(reflect.ValueOf(target).Elem())
}

func fieldsOf(v reflect.Value) []setting {
	var out []setting
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			out = append(out, fieldsOf(v.Field(i))...)
			continue
		}
		s := setting{
			name: field.Tag.Get("name"), standard: field.Tag.Get("default"), usage: field.Tag.Get("usage"),
			required: field.Tag.Get("required") == "true", noFlag: field.Tag.Get("flag") == "no", value: v.Field(i),
		}
		if one := field.Tag.Get("oneof"); one != "" {
			s.oneof = strings.Split(one, "|")
		}
		out = append(out, s)
	}
	return out
}

// Flags defines a flag for each setting of target, a pointer to one of this package's structs, and --config for the file.
// The flags show the defaults; Load fills target.
func Flags(flags *pflag.FlagSet, target any) {
	flags.String(fileFlag, "", "YAML file of settings ("+EnvPrefix+"CONFIG)")
	for _, s := range settings(target) {
		if s.noFlag {
			continue
		}
		usage := s.usage
		if len(s.oneof) > 0 {
			usage += ": " + strings.Join(s.oneof, ", ")
		}
		if s.required {
			usage += " (required)"
		}
		switch s.value.Interface().(type) {
		case bool:
			flags.Bool(s.name, s.standard == "true", usage)
		case []string:
			flags.StringSlice(s.name, list(s.standard), usage)
		default:
			// Texts, numbers and durations are parsed by Load, so that their errors read alike wherever they come from.
			flags.String(s.name, s.standard, usage)
		}
	}
}

// Load fills target, a pointer to one of this package's structs, from flags (which Flags has defined, and which are
// parsed), the environment and the file that --config or ZONEFORGE_CONFIG names. All that is wrong is in the one error,
// which wraps ErrInvalid.
func Load(target any, flags *pflag.FlagSet) error {
	v := viper.New()
	if err := v.BindEnv(fileFlag, EnvPrefix+"CONFIG"); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := v.BindPFlag(fileFlag, flags.Lookup(fileFlag)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return load(v, target, flags, v.GetString(fileFlag))
}

// load is Load with the file's name known; "" for none.
func load(v *viper.Viper, target any, flags *pflag.FlagSet, path string) error {
	all := settings(target)
	var errs []error
	positions := map[string]string{}
	if path != "" {
		entries, err := readFile(path, all)
		if err != nil {
			errs = append(errs, err)
		}
		values := map[string]any{}
		for _, e := range entries {
			values[e.name], positions[e.name] = e.value, e.at
		}
		if err := v.MergeConfigMap(values); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
	}
	for _, s := range all {
		v.SetDefault(s.name, s.standard)
		if err := v.BindEnv(s.name, s.env()); err != nil {
			errs = append(errs, err)
		}
		var flag *pflag.Flag
		if flags != nil && !s.noFlag {
			flag = flags.Lookup(s.name)
		}
		if flag != nil {
			if err := v.BindPFlag(s.name, flag); err != nil {
				errs = append(errs, err)
			}
		}
		// viper says what wins; where that came from is for errors only.
		raw, where := v.Get(s.name), "default"
		switch {
		case flag != nil && flag.Changed:
			where = "--" + s.name
		case lookupEnv(s.env()) != "":
			where = s.env()
		case positions[s.name] != "":
			where = positions[s.name] + ": " + s.name
		}
		if err := s.assign(raw); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
			continue
		}
		if s.required && s.value.IsZero() {
			errs = append(errs, fmt.Errorf("%s is not set: %s", s.name, s.places()))
		}
	}
	if checker, ok := target.(interface{ check() []error }); ok && len(errs) == 0 {
		errs = checker.check()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// assign parses what a flag, a variable or the file holds. The error never repeats the value of a secret.
func (s setting) assign(raw any) error {
	switch s.value.Interface().(type) {
	case []string:
		var items []string
		switch raw := raw.(type) {
		case []string:
			items = raw
		case []any:
			for _, item := range raw {
				items = append(items, fmt.Sprint(item))
			}
		default:
			items = list(fmt.Sprint(raw))
		}
		if len(items) == 0 {
			items = nil
		}
		s.value.Set(reflect.ValueOf(items))
		return nil
	}
	text := fmt.Sprint(raw)
	switch s.value.Interface().(type) {
	case bool:
		switch text {
		case "true":
			s.value.SetBool(true)
		case "false", "":
			s.value.SetBool(false)
		default:
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case int:
		n, err := strconv.Atoi(text)
		if text == "" {
			n, err = 0, nil
		}
		if err != nil || n < 0 {
			return fmt.Errorf("%q is no number from 0", text)
		}
		s.value.SetInt(int64(n))
	case time.Duration:
		d, err := time.ParseDuration(text)
		if text == "" {
			d, err = 0, nil
		}
		if err != nil || d < 0 {
			return fmt.Errorf("%q is no duration; write it such as 500ms, 30s or 24h", text)
		}
		s.value.SetInt(int64(d))
	default:
		if len(s.oneof) > 0 && !contains(s.oneof, text) {
			return fmt.Errorf("%q is not one of %s%s", text, strings.Join(s.oneof, ", "), hint(text, s.oneof))
		}
		s.value.SetString(text)
	}
	return nil
}

// list parts a text at its commas.
func list(text string) []string {
	var out []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

// Entry is one setting with its value as it may be printed.
type Entry struct {
	Name, Value string
}

// Entries are the settings of target, a pointer to one of this package's structs, in their order. Secrets are redacted.
func Entries(target any) []Entry {
	var out []Entry
	for _, s := range settings(target) {
		value := fmt.Sprint(s.value.Interface())
		if items, ok := s.value.Interface().([]string); ok {
			value = strings.Join(items, ",")
		}
		out = append(out, Entry{s.name, value})
	}
	return out
}
