package oci

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
)

func TestParseEncryption(t *testing.T) {
	for value, want := range map[string]*encryption{
		"none": {}, "file:/k/a b": {"file", "/k/a b"}, "keyring:web:1": {"keyring", "web:1"},
		"": nil, "file": nil, "file:": nil, "file:k": nil, "file:/k/../x": nil, "keyring:": nil, "keyring:a\x00b": nil, "keyring:\xe9": nil,
		"fd:3": nil, "NONE": nil, "/k/a": nil,
	} {
		got, err := parseEncryption(value)
		if want == nil {
			want = &got
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("%q: error %v", value, err)
			}
		} else if err != nil {
			t.Errorf("%q: error %v", value, err)
		}
		if got != *want {
			t.Errorf("%q: %+v, want %+v", value, got, *want)
		}
	}
	for value, want := range map[string]string{"none": "", "file:/k": "aes-xts-plain64"} {
		if e, err := parseEncryption(value); err != nil || e.Transfer().Name != want {
			t.Errorf("%s: transfer %q, error %v", value, e.Transfer().Name, err)
		}
	}
}

// A key must be allowed, and other users must not have access to its file.
func TestOpenKeyFile(t *testing.T) {
	dir := t.TempDir()
	makeDirs(t, dir, 0o755, "keys", "others")
	for name, mode := range map[string]os.FileMode{"keys/a": 0o600, "keys/group": 0o640, "keys/all": 0o604, "others/b": 0o600} {
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name), []byte("secret"), 0o600), os.Chmod(filepath.Join(dir, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("a", filepath.Join(dir, "keys/link")), unix.Mkfifo(filepath.Join(dir, "keys/fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s := &Settings{Lists: Lists{AllowedKeyFiles: []string{dir + "/keys"}}, Handlers: map[string]Lists{"runc-b": {AllowedKeyFiles: []string{dir + "/others"}}}}
	for _, tt := range []struct {
		name, handler string
		want          error
	}{
		{"keys/a", "runc", nil},
		{"keys/a", "runc-b", below.ErrNotAllowed},
		{"others/b", "runc", below.ErrNotAllowed},
		{"others/b", "runc-b", nil},
		{"keys/group", "runc", unix.EACCES},
		{"keys/all", "runc", unix.EACCES},
		{"keys/link", "runc", unix.ELOOP},
		{"keys/fifo", "runc", unix.EINVAL},
		{"keys/none", "runc", unix.ENOENT},
	} {
		f, err := s.openKey(encryption{keyFile, filepath.Join(dir, tt.name)}, Requester{Handler: tt.handler})
		if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s for %s: error %v, want %v", tt.name, tt.handler, err, tt.want)
		}
		if err == nil {
			if text, err := io.ReadAll(f); string(text) != "secret" {
				t.Errorf("%s is %q, error %v", tt.name, text, err)
			}
			_ = f.Close()
		}
	}
	if f, err := s.openKey(encryption{}, Requester{}); f != nil || err != nil {
		t.Errorf("without encryption: %v, error %v", f, err)
	}
	if _, err := s.openKey(encryption{keyKeyring, "web"}, Requester{}); !errors.Is(err, unix.EPERM) {
		t.Errorf("a key of the keyrings without a list: error %v", err)
	}
}
