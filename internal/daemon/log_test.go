package daemon

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	log := newLogger(file, 7)
	log.info("serving")
	log.warn("careful\n\x1b[2J\xff")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	if len(lines) != 2 {
		t.Fatalf("the log is %q", data)
	}
	for i, want := range []string{"serving", `careful\n\x1b[2J\xff`} {
		var line struct {
			Level, TS, Msg string
			ID             *int
		}
		if err := json.Unmarshal(lines[i], &line); err != nil {
			t.Fatalf("%s: %v", lines[i], err)
		}
		if line.Msg != want || line.TS == "" || line.ID == nil || *line.ID != 7 {
			t.Errorf("line %s", lines[i])
		}
	}
}
