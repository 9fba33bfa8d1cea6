package jsontext

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
)

// What is wrong is said without a name of Go.
func TestExplain(t *testing.T) {
	type plainPart struct {
		Name string `json:"name"`
	}
	type part struct {
		plainPart
		Raw []byte `json:"raw"`
	}
	type request struct {
		On     bool           `json:"on"`
		Count  int            `json:"count"`
		Size   uint32         `json:"size"`
		Weight float64        `json:"weight"`
		Part   *part          `json:"part"`
		Parts  []part         `json:"parts"`
		Limits map[string]int `json:"limits"`
		Inner  *uint8         `json:"inner"`
	}
	for text, want := range map[string]string{
		`{"on":"yes"}`:              "on: a string where a boolean is expected",
		`{"count":1.5}`:             "count: number 1.5 where a whole number is expected",
		`{"count":true}`:            "count: a boolean where a whole number is expected",
		`{"size":-1}`:               "size: number -1 where a whole number from 0 to 4294967295 is expected",
		`{"inner":256}`:             "inner: number 256 where a whole number from 0 to 255 is expected",
		`{"weight":[]}`:             "weight: an array where a number is expected",
		`{"part":{"name":{}}}`:      "part.name: an object where a string is expected",
		`{"part":{"raw":1}}`:        "part.raw: a number where a string in base64 is expected",
		`{"parts":{}}`:              "parts: an object where an array is expected",
		`{"parts":[{"name":true}]}`: "parts.name: a boolean where a string is expected",
		`{"limits":3}`:              "limits: a number where an object is expected",
		`[1]`:                       "an array where an object is expected",
		`{"other":1}`:               `unknown field "other"`,
		`{`:                         "the text ends too early",
		``:                          "the text is empty",
		`x`:                         "invalid character 'x' looking for beginning of value",
	} {
		d := json.NewDecoder(bytes.NewReader([]byte(text)))
		d.DisallowUnknownFields()
		if err := Explain(d.Decode(&request{})); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if err := Explain(io.EOF); !errors.Is(err, io.EOF) {
		t.Errorf("the cause is lost: %v", err)
	}
	if Explain(nil) != nil || !errors.Is(Explain(os.ErrExist), os.ErrExist) {
		t.Error("other errors change")
	}
}
