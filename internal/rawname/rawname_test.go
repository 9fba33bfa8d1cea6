package rawname

import (
	"encoding/json"
	"errors"
	"testing"
)

// Names survive JSON. For names in UTF-8, the JSON has no additional member.
func TestJSON(t *testing.T) {
	type object struct {
		File      string `json:"file"`
		FileBytes []byte `json:"file_bytes,omitempty"`
	}
	for name, want := range map[string]string{
		"":             `{"file":""}`,
		"/a b.img":     `{"file":"/a b.img"}`,
		"/café":        `{"file":"/café"}`,
		"/\ufffd":      `{"file":"/` + "\ufffd" + `"}`,
		"/caf\xe9.img": `{"file":"/caf\ufffd.img","file_bytes":"L2NhZukuaW1n"}`,
		"\xff\xfe":     `{"file":"\ufffd\ufffd","file_bytes":"//4="}`,
		"\xed\xa0\x80": `{"file":"\ufffd\ufffd\ufffd","file_bytes":"7aCA"}`, // half a surrogate
	} {
		text, err := json.Marshal(object{name, Bytes(name)})
		if err != nil || string(text) != want {
			t.Errorf("%q: %s, error %v, want %s", name, text, err, want)
		}
		var o object
		if err := json.Unmarshal(text, &o); err != nil || Name(o.File, o.FileBytes) != name {
			t.Errorf("%q becomes %q, error %v", name, Name(o.File, o.FileBytes), err)
		}
	}
}

func TestText(t *testing.T) {
	for message, want := range map[string]string{
		"": "", "open /café: �": "open /café: �", "open /caf\xe9.img: no\n": `open /caf\xe9.img: no` + "\n", "\xff\xfe": `\xff\xfe`,
	} {
		if got := Text(message); got != want {
			t.Errorf("%q becomes %q, want %q", message, got, want)
		}
	}
}

func FuzzJSON(f *testing.F) {
	f.Add("/caf\xe9.img")
	f.Fuzz(func(t *testing.T, name string) {
		text, err := json.Marshal(map[string]any{"file": name, "file_bytes": Bytes(name)})
		var o struct {
			File  string
			Bytes []byte `json:"file_bytes"`
		}
		if err == nil {
			err = json.Unmarshal(text, &o)
		}
		if got := Name(o.File, o.Bytes); err != nil || got != name {
			t.Errorf("%q becomes %q, error %v", name, got, err)
		}
	})
}

// A String survives JSON, whatever its bytes are.
func TestString(t *testing.T) {
	for _, name := range []string{"", "/a b", "/caf\xe9.img", "\xff\x00\"\\\n"} {
		text, err := json.Marshal(String(name))
		var got String
		if err := errors.Join(err, json.Unmarshal(text, &got)); err != nil || string(got) != name {
			t.Errorf("%q becomes %q, error %v", name, got, err)
		}
	}
	var s String
	if err := json.Unmarshal([]byte(`"%"`), &s); err == nil {
		t.Error("what is not base64 is accepted")
	}
}
