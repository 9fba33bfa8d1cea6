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
tmpfs_limit = "64m"
[runtimes]
runc = "/opt/runc"
[handlers.runc-data]
writable_images = ["/var/lib/images/data"]
[owners.1000]
allowed_images = []
`)
	want := &Settings{
		Runtimes: map[string]string{"runc": "/opt/runc"}, Lists: Lists{AllowedImages: []string{"/var/lib/images/"}, WritableImages: []string{}},
		Handlers: map[string]Lists{"runc-data": {WritableImages: []string{"/var/lib/images/data"}}}, Owners: map[string]Lists{"1000": {AllowedImages: []string{}}},
		AllowedOverlays: []string{"/var/lib/overlays"}, Socket: "/run/x.sock", AttachTimeout: 1500 * time.Millisecond, SweepAfter: 3 * time.Minute, TmpfsLimit: 64 << 20,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, error %v", got, err)
	}
	for name, program := range map[string]string{"runc": "/opt/runc", "runc-data": "/opt/runc", "crun": "/usr/bin/crun", "crun-a-b": "/usr/bin/crun"} {
		if got := got.Runtime(name); got != program {
			t.Errorf("runtime %s is %s, want %s", name, got, program)
		}
	}
}

func TestReadSettingsRefuses(t *testing.T) {
	for text, why := range map[string]string{
		`allowed_image = ["/x"]`:       "allowed_image",
		"[runtimes]\nrunc = \"runc\"":  "runc",
		"[runtime]\nrunc = \"/x\"":     "runtime",
		`allowed_images = ["x"]`:       "allowed_images",
		`allowed_images = "/x"`:        "allowed_images",
		`writable_images = ["x"]`:      "writable_images",
		`allowed_overlays = ["x"]`:     "allowed_overlays",
		`attach_timeout = "0s"`:        "attach_timeout",
		`attach_timeout = "soon"`:      "soon",
		`socket = `:                    "oci.toml",
		`tmpfs_limit = "0"`:            "tmpfs_limit",
		`tmpfs_limit = "50%"`:          "tmpfs_limit",
		`tmpfs_limit = "99999999999g"`: "tmpfs_limit",

		"[handlers.rucn]\nallowed_images = []":                                   "handlers.rucn",
		"[handlers.hook]\nallowed_images = [\"x\"]":                              "handlers.hook",
		"[handlers.hook]\nallowed_overlays = []":                                 "allowed_overlays",
		"[owners.anna]\nallowed_images = []":                                     "owners.anna",
		"[owners.-1]\nallowed_images = []":                                       "owners.-1",
		"[owners.01]\nallowed_images = []":                                       "owners.01",
		"[owners.4294967296]\nallowed_images = []":                               "owners.4294967296",
		"[owners.0]\nwritable_images = [\"x\"]":                                  "owners.0",
		"allowed_overlays = [\"/v\"]\n[owners.0]\nallowed_images = [\"/v/w\"]":   "allowed_overlays",
		"allowed_overlays = [\"/v\"]\n[handlers.oci]\nallowed_images = [\"/v\"]": "allowed_overlays",

		"allowed_images = [\"/v\"]\nallowed_overlays = [\"/v/w\"]":  "allowed_overlays",
		"allowed_images = [\"/v/w\"]\nallowed_overlays = [\"/v/\"]": "allowed_overlays",
		"allowed_stores = [\"/v\"]\nallowed_overlays = [\"/v/w\"]":  "stores for \"/v\"",
		"allowed_stores = [\"/v/w\"]\nallowed_overlays = [\"/v\"]":  "stores for \"/v/w\"",
	} {
		if s, err := readSettings(t, text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %+v, error %v", text, s, err)
		}
	}
}
