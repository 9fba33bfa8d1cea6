package statefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
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

// A file that cannot be written or replaced leaves no other file behind.
func TestReplaceFails(t *testing.T) {
	full := filepath.Join(t.TempDir(), "full")
	if err := os.Symlink("/dev/full", full+newSuffix); err != nil { // as a full file system
		t.Fatal(err)
	}
	occupied := filepath.Join(t.TempDir(), "occupied")
	if err := os.MkdirAll(filepath.Join(occupied, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{full: unix.ENOSPC, occupied: unix.EEXIST} {
		if err := replace(path, []byte("new")); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", path, err, want)
		}
		if _, err := os.Lstat(path + newSuffix); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a file is left (%v)", path, err)
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
