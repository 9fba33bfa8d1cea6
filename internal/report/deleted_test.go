package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
)

// openFile makes a file that stays open until the end of the test.
func openFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
}

// The table says which files are deleted.
func TestDeviceTableDeleted(t *testing.T) {
	dir := t.TempDir()
	kept, gone := filepath.Join(dir, "kept"), filepath.Join(dir, "gone")
	openFile(t, kept)
	openFile(t, gone)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	devices := []client.Device{
		{PID: os.Getpid(), File: kept},
		{PID: os.Getpid(), File: gone},
		{PID: os.Getpid(), Table: "0 8 zero", Files: []client.DeviceFile{{File: kept}, {File: gone}}},
		{File: gone}, // no server has it open
	}
	var out strings.Builder
	if err := DeviceTable(&out, devices); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for i, want := range []string{kept, gone + " (deleted)", "table of " + kept + ", " + gone + " (deleted)", gone} {
		if !strings.HasSuffix(lines[i+1], "  "+want) {
			t.Errorf("line %q does not end with %q", lines[i+1], want)
		}
	}
	if devices[1].File != gone || devices[2].Files[1].File != gone {
		t.Errorf("the devices themselves are changed: %+v", devices)
	}
}
