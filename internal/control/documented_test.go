package control

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
)

func protocol(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// docs/serve.md has each field of a device request, of its config and of the server, and no
// others.
func TestFieldsDocumented(t *testing.T) {
	text := protocol(t)
	for _, typ := range []reflect.Type{reflect.TypeFor[client.AddRequest](), reflect.TypeFor[client.TableFile](), reflect.TypeFor[client.ErrorReply]()} {
		for name := range keys(typ) {
			if !regexp.MustCompile("[`\"]" + name + "[`\"]").MatchString(text) {
				t.Errorf("docs/serve.md lacks %s of %v", name, typ)
			}
		}
	}
	for _, tt := range []struct {
		typ        reflect.Type
		begin, end string
	}{
		{reflect.TypeFor[client.Config](), "`config` can have", ". They mean"},
		{reflect.TypeFor[client.ServerStatus](), "| `GET /v1/server` |", " |\n"},
	} {
		_, list, _ := strings.Cut(text, tt.begin)
		list, _, _ = strings.Cut(list, tt.end)
		missing := keys(tt.typ)
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(list, -1) {
			if !missing[m[1]] {
				t.Errorf("docs/serve.md has %q, which %v lacks", m[1], tt.typ)
			}
			delete(missing, m[1])
		}
		for name := range missing {
			t.Errorf("docs/serve.md lacks %s of %v", name, tt.typ)
		}
	}
}

// keys returns the names that the fields of a type have in JSON.
func keys(typ reflect.Type) map[string]bool {
	names := map[string]bool{}
	for field := range typ.Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" && name != "-" {
			names[name] = true
		}
	}
	return names
}

// The device requests in the documents can be read.
func TestRequestsDocumented(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile(` -d '(.*?)'|(?m:^(\{"table"(?s:.*?))\n`+"```)").FindAllStringSubmatch(string(readme)+protocol(t), -1) {
		found++
		dec := json.NewDecoder(strings.NewReader(m[1] + m[2]))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&client.AddRequest{}); err != nil {
			t.Errorf("%s: %v", m[1]+m[2], err)
		}
	}
	if found < 4 {
		t.Errorf("only %d requests were found", found)
	}
}
