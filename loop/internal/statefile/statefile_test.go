package statefile

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestParse(t *testing.T) {
	good, err := json.Marshal(&Record{Version: version, StartTime: 5, Status: &Status{ID: 3, PID: 9, File: "/f"}})
	if err != nil {
		t.Fatal(err)
	}
	if s := parse(good, 3); s == nil || s.StartTime != 5 || s.Status.PID != 9 || s.Status.File != "/f" {
		t.Fatalf("parsed %+v", s)
	}
	for name, data := range map[string][]byte{
		"empty":           nil,
		"cut off":         good[:len(good)/2],
		"another version": bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1),
		"no status":       []byte(`{"version":1}`),
		"another device":  bytes.Replace(good, []byte(`"id":3`), []byte(`"id":4`), 1),
	} {
		if s := parse(data, 3); s != nil {
			t.Errorf("%s: parsed %+v", name, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"status":{"id":3}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s := parse(data, 3); s != nil && (s.Status == nil || s.Status.ID != 3) {
			t.Fatalf("parsed %+v", s)
		}
	})
}
