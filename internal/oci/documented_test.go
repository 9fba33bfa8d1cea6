package oci

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
)

// The requests that the documented table names have these settings, and those that the code
// uses for a container are all named.
func TestRequestsAreDocumented(t *testing.T) {
	fields := fieldsOf(reflect.TypeFor[client.AddRequest](), "")
	named := map[string]bool{}
	code := regexp.MustCompile("`([^`]+)`")
	for _, cells := range documentedRows(t) {
		for _, name := range code.FindAllStringSubmatch(cells[4], -1) {
			named[name[1]] = true
		}
	}
	targets := []string{"verity", "snapshot", "crypt"}
	for name := range named {
		if !slices.Contains(fields, name) && !slices.Contains(targets, name) {
			t.Errorf("a request has no %s", name)
		}
	}
	b := newDiskBed(t)
	encrypt := []string{"encrypt", "file:" + b.dir + "/keys/key"}
	for _, pairs := range [][]string{
		encrypt, append(encrypt, "verity.roothash", b.root), {"options", "rw", "cow", "transient", "encrypt", "ephemeral", "verity.roothash", b.root},
	} {
		d, err := b.request(Requester{}, pairs...)
		if err != nil {
			t.Fatal(err)
		}
		for _, used := range usedIn(t, &d.Add) {
			if !named[used] {
				t.Errorf("%q: the request has %s, which no column names", pairs, used)
			}
		}
	}
}

// fieldsOf returns the names of a structure's fields in JSON, with those of config.
func fieldsOf(t reflect.Type, prefix string) (names []string) {
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, prefix+name)
		if name == "config" {
			names = append(names, fieldsOf(t.Field(i).Type, "config.")...)
		}
	}
	return names
}

// usedIn returns what a request sets, and the targets of its table. on_crash is the server's own
// for a device that ends with it.
func usedIn(t *testing.T, request *client.AddRequest) (names []string) {
	t.Helper()
	text, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	var set map[string]any
	if err := json.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	config, _ := set["config"].(map[string]any)
	delete(set, "config")
	delete(config, "on_crash")
	for prefix, object := range map[string]map[string]any{"": set, "config.": config} {
		for name, value := range object {
			if empty, isMap := value.(map[string]any); value != nil && !reflect.ValueOf(value).IsZero() && (!isMap || len(empty) > 0) {
				names = append(names, prefix+name)
			}
		}
	}
	for _, target := range []string{"verity", "snapshot", "crypt"} {
		if strings.Contains(request.Table, " "+target+" ") {
			names = append(names, target)
		}
	}
	return names
}

// The documented settings can be read, and are all that exist.
func TestSettingsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/containers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```toml\n# Allowed images")
	example, after, _ := strings.Cut(example, "```")
	if _, err := readSettings(t, "# Allowed images"+example); err != nil {
		t.Error(err)
	}
	lists, _, _ := strings.Cut(after, "can be\ngiven for a handler")
	for _, typ := range []reflect.Type{reflect.TypeFor[Settings](), reflect.TypeFor[Lists]()} {
		for i := range typ.NumField() {
			key := typ.Field(i).Tag.Get("toml")
			if key == "" {
				continue // the lists themselves
			}
			if !strings.Contains(example, "\n"+key+" = ") && !strings.Contains(example, "\n["+key) {
				t.Errorf("%s is not in the example", key)
			}
			if typ == reflect.TypeFor[Lists]() && !strings.Contains(lists, "`"+key+"`") {
				t.Errorf("%s is not among the lists of handlers and owners", key)
			}
		}
	}
}

// The settings of the packages can be read, also with all that they propose.
func TestPackagedSettings(t *testing.T) {
	text, err := os.ReadFile("../../packaging/ublk-loop/oci.toml")
	if err != nil {
		t.Fatal(err)
	}
	proposed := regexp.MustCompile(`(?m)^#(\w+ = |\[)`).ReplaceAllString(string(text), "$1")
	if proposed == string(text) {
		t.Error("the packages propose no settings")
	}
	for _, settings := range []string{string(text), proposed} {
		if _, err := readSettings(t, settings); err != nil {
			t.Error(err)
		}
	}
}

// docs/containers.md has the file for podman's hooks that the packages install.
func TestHooksAreDocumented(t *testing.T) {
	document, err := os.ReadFile("../../docs/containers.md")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("../../cmd/ublk-loop/hooks.d/ublk-loop.json")
	if err != nil {
		t.Fatal(err)
	}
	var want any
	if err := json.Unmarshal(file, &want); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(document, -1) {
		var got any
		if err := json.Unmarshal(m[1], &got); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
		if reflect.DeepEqual(got, want) {
			return
		}
	}
	t.Errorf("docs/containers.md does not have %s", file)
}
