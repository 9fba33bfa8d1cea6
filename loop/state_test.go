package loop

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestParseState(t *testing.T) {
	good, err := json.Marshal(&state{Version: stateVersion, StartTime: 5, Status: &Status{ID: 3, PID: 9, File: "/f"}})
	if err != nil {
		t.Fatal(err)
	}
	if s := parseState(good, 3); s == nil || s.StartTime != 5 || s.Status.PID != 9 || s.Status.File != "/f" {
		t.Fatalf("parsed %+v", s)
	}
	for name, data := range map[string][]byte{
		"empty":           nil,
		"cut off":         good[:len(good)/2],
		"another version": bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1),
		"no status":       []byte(`{"version":1}`),
		"another device":  bytes.Replace(good, []byte(`"id":3`), []byte(`"id":4`), 1),
	} {
		if s := parseState(data, 3); s != nil {
			t.Errorf("%s: parsed %+v", name, s)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"version":1,"status":{"id":3}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s := parseState(data, 3); s != nil && (s.Status == nil || s.Status.ID != 3) {
			t.Fatalf("parsed %+v", s)
		}
	})
}

func TestParseStartTime(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"
	for name, stat := range map[string]string{
		"plain":                  "1 (cat)" + rest,
		"spaces":                 "1 (a b c)" + rest,
		"parentheses and digits": "1 (x) S 1 2 (y)" + rest,
	} {
		if n, err := parseStartTime([]byte(stat)); err != nil || n != 4242 {
			t.Errorf("%s: %d, error %v; want 4242", name, n, err)
		}
	}
	for _, stat := range []string{"", "1 (cat) S 1", "1 (cat)"} {
		if n, err := parseStartTime([]byte(stat)); err == nil {
			t.Errorf("%q: %d without an error", stat, n)
		}
	}
}

func FuzzParseStartTime(f *testing.F) {
	f.Add([]byte("1 (cat) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"))
	f.Fuzz(func(_ *testing.T, stat []byte) { _, _ = parseStartTime(stat) })
}
