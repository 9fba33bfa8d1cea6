package oci

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func readSettings(t *testing.T, text string) (*Settings, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "oci.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadSettings(path)
}

func TestReadSettings(t *testing.T) {
	defaults := &Settings{Socket: "/run/ublk-loop/control.sock", AttachTimeout: 10 * time.Second, SweepAfter: time.Minute}
	for _, read := range []func() (*Settings, error){
		func() (*Settings, error) { return ReadSettings("/nothing") },
		func() (*Settings, error) { return readSettings(t, "# nothing\n") },
	} {
		if got, err := read(); err != nil || !reflect.DeepEqual(got, defaults) {
			t.Errorf("%+v, error %v", got, err)
		}
	}
	if program := defaults.Runtime("crun"); program != "/usr/bin/crun" {
		t.Errorf("crun is %s", program)
	}
	got, err := readSettings(t, `
allowed_images = ["/var/lib/images/"]
writable_images = []
allowed_overlays = ["/var/lib/overlays"]
socket = "/run/x.sock"
attach_timeout = "1.5s"
sweep_after = "3m"
[runtimes]
runc = "/opt/runc"
`)
	want := &Settings{
		Runtimes: map[string]string{"runc": "/opt/runc"}, AllowedImages: []string{"/var/lib/images/"}, WritableImages: []string{},
		AllowedOverlays: []string{"/var/lib/overlays"}, Socket: "/run/x.sock", AttachTimeout: 1500 * time.Millisecond, SweepAfter: 3 * time.Minute,
	}
	if err != nil || !reflect.DeepEqual(got, want) || got.Runtime("runc") != "/opt/runc" {
		t.Errorf("%+v, error %v", got, err)
	}
}

func TestReadSettingsRefuses(t *testing.T) {
	for text, why := range map[string]string{
		`allowed_image = ["/x"]`:      "allowed_image",
		"[runtimes]\nrunc = \"runc\"": "runc",
		"[runtime]\nrunc = \"/x\"":    "runtime",
		`allowed_images = ["x"]`:      "allowed_images",
		`allowed_images = "/x"`:       "allowed_images",
		`writable_images = ["x"]`:     "writable_images",
		`allowed_overlays = ["x"]`:    "allowed_overlays",
		`attach_timeout = "0s"`:       "attach_timeout",
		`attach_timeout = "soon"`:     "soon",
		`socket = `:                   "oci.toml",
		"allowed_images = [\"/v\"]\nallowed_overlays = [\"/v/w\"]":  "allowed_overlays",
		"allowed_images = [\"/v/w\"]\nallowed_overlays = [\"/v/\"]": "allowed_overlays",
	} {
		if s, err := readSettings(t, text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %+v, error %v", text, s, err)
		}
	}
}
