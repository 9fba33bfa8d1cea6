package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

const plainConfig = `{"ociVersion":"1.2.0","annotations":{"a":"<b>&\u2028"},"x-new":{"big":12345678901234567890,"n":1.50},
 "root":{"path":"rootfs","readonly":true,"x":[1,null]}}`

func testBundle(t *testing.T, config string) (*bundle, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, []byte(config), 0o640); err != nil {
		t.Fatal(err)
	}
	b, _ := openBundle(&call{bundle: dir})
	if b != nil {
		t.Cleanup(b.close)
	}
	return b, path
}

func TestOpenBundle(t *testing.T) {
	b, path := testBundle(t, `{"annotations":{"dev.ublk-loop.rootfs.image":"/x"}}`)
	if b == nil || b.config.Annotations[imageAnnotation] != "/x" {
		t.Fatalf("%+v", b)
	}
	if other, _ := openBundle(&call{bundle: "/nothing", config: path}); other == nil || other.name != "config.json" {
		t.Errorf("with a file's name: %+v", other)
	} else {
		other.close()
	}
	// crun takes config.json alone for the name in the bundle, but not ./config.json.
	elsewhere := t.TempDir()
	t.Chdir(elsewhere)
	if err := os.WriteFile("config.json", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]string{"config.json": "/x", "./config.json": ""} {
		b, _ := openBundle(&call{bundle: filepath.Dir(path), config: config})
		if b == nil || b.config.Annotations[imageAnnotation] != want {
			t.Errorf("--config %s: %+v, want the image %q", config, b, want)
		}
		if b != nil {
			b.close()
		}
	}
	tooLong := `{` + strings.Repeat(" ", configLimit) + `}`
	for _, config := range []string{tooLong, ``, `[]`, `{"annotations":[]}`, `{"annotations":{"a":1}}`, `{`} {
		if b, _ := testBundle(t, config); b != nil {
			t.Errorf("%.20s: a bundle", config)
		}
	}
	if b, _ := openBundle(&call{bundle: "/nothing"}); b != nil {
		t.Errorf("a bundle that is not there: %+v", b)
	}
}

func newRoot(c object) error { return c.setRoot("/new") }

// Only the path changes. Numbers and unknown fields stay.
func TestWithRoot(t *testing.T) {
	for config, want := range map[string]string{
		plainConfig:                `{"annotations":{"a":"<b>&\u2028"},"ociVersion":"1.2.0","root":{"path":"/new","readonly":true,"x":[1,null]},"x-new":{"big":12345678901234567890,"n":1.50}}`,
		`{}`:                       `{"root":{"path":"/new"}}`,
		`{"root":null}`:            `{"root":{"path":"/new"}}`,
		`{"root":{"path":"/new"}}`: `{"root":{"path":"/new"}}`,
	} {
		got, err := editConfig([]byte(config), newRoot)
		if err != nil || string(got) != want+"\n" {
			t.Errorf("%s becomes\n%s, error %v, want\n%s", config, got, err, want)
		}
	}
	for _, config := range []string{`null`, `{"root":[]}`, `x`} {
		if got, err := editConfig([]byte(config), newRoot); err == nil {
			t.Errorf("%s becomes %s", config, got)
		}
	}
}

func TestSetRoot(t *testing.T) {
	b, path := testBundle(t, plainConfig)
	// The remains of a killed writer do not disturb the next one.
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), ".config.json.ublk-loop"), []byte("x"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := b.edit(newRoot); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]map[string]any
	_ = json.Unmarshal(text, &config)
	if config["root"]["path"] != "/new" {
		t.Errorf("the bundle is %s", text)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if err := b.restore(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != plainConfig {
		t.Errorf("restored: %s, error %v", text, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the bundle has %v, error %v", entries, err)
	}
}

// The new file has each bit of the old one's mode, and its owner.
func TestSetRootKeepsModeAndOwner(t *testing.T) {
	for _, mode := range []uint32{0o600, 0o641, 0o755, 0o7777} {
		_, path := testBundle(t, plainConfig)
		if err := unix.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		b, _ := openBundle(&call{bundle: filepath.Dir(path)})
		if b == nil {
			t.Fatal("no bundle")
		}
		t.Cleanup(b.close)
		var before, after unix.Stat_t
		if err := unix.Stat(path, &before); err != nil {
			t.Fatal(err)
		}
		if err := b.edit(newRoot); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(path, &after); err != nil {
			t.Fatal(err)
		}
		if after.Mode != unix.S_IFREG|mode || after.Uid != before.Uid || after.Gid != before.Gid {
			t.Errorf("a file of %d:%d with mode %#o becomes one of %d:%d with %#o", before.Uid, before.Gid, mode, after.Uid, after.Gid, after.Mode)
		}
	}
}

// A failed write leaves the old file and no other. Here the limit of the file size makes
// the write fail in the middle.
func TestSetRootFails(t *testing.T) {
	if !ublktest.Alone(t) {
		return
	}
	b, path := testBundle(t, plainConfig)
	undo := ublktest.LimitFileSize(t, 20)
	err := b.edit(newRoot)
	undo()
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("error %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the bundle has %v, error %v", entries, err)
	}
	if text, err := os.ReadFile(path); err != nil || !reflect.DeepEqual(string(text), plainConfig) {
		t.Errorf("the bundle is %s, error %v", text, err)
	}
}

// A configuration that has taken the place of the one that was read gives the new file neither its mode nor
// its owner.
func TestSetRootReplaced(t *testing.T) {
	b, path := testBundle(t, plainConfig)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(path, 0o4755); err != nil {
		t.Fatal(err)
	}
	if err := b.edit(newRoot); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

func TestSetRootOfLink(t *testing.T) {
	_, real := testBundle(t, plainConfig)
	dir := t.TempDir()
	if err := os.Symlink(real, filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	b, _ := openBundle(&call{bundle: dir})
	defer b.close()
	if err := b.edit(newRoot); !errors.Is(err, unix.EINVAL) {
		t.Errorf("error %v", err)
	}
	if text, err := os.ReadFile(real); err != nil || string(text) != plainConfig {
		t.Errorf("the bundle is %s, error %v", text, err)
	}
}

// A writer waits for another writer of the same bundle, because both use one temporary
// name.
func TestSetRootWaitsForAnotherWriter(t *testing.T) {
	b, path := testBundle(t, plainConfig)
	other, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.edit(newRoot) }() // ends when the other lock ends
	for deadline := time.Now().Add(10 * time.Second); !isAwaited(t, other); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) || len(done) > 0 {
			t.Fatal("nothing waits for the lock")
		}
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != plainConfig {
		t.Errorf("while another writes it becomes %s, error %v", text, err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// isAwaited reports whether a process waits for a lock on the file (proc_locks(5)).
func isAwaited(t *testing.T, f *os.File) bool {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(locks)) {
		if strings.Contains(line, " -> ") && strings.Contains(line, fmt.Sprintf(":%d ", st.Ino)) {
			return true
		}
	}
	return false
}
