package oci

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWorded checks the words that podman looks for.
func TestWorded(t *testing.T) {
	if Reword(nil) != nil {
		t.Error("nil is an error")
	}
	for _, errno := range []unix.Errno{unix.ENOENT, unix.EACCES, unix.EPERM} {
		err := Reword(errors.Join(&os.PathError{Op: "open", Path: "/x", Err: errno}))
		if strings.Contains(err.Error(), errno.Error()) || !strings.HasPrefix(err.Error(), "open /x: ") || !errors.Is(err, errno) {
			t.Errorf("%v is %v", errno, err)
		}
	}
}

// An error of the runtime's path comes before any other action.
func TestRunWithoutRuntime(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	for runtime, want := range map[string]error{"/nothing": unix.ENOENT, plain: unix.EACCES, self: unix.EINVAL, link: unix.EINVAL} {
		w := &Wrapper{Maker: Maker{Settings: &Settings{}}, Runtime: runtime}
		if err := w.Run([]string{"state", "x"}); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", runtime, err, want)
		}
	}
}

// The runtime's log also gets the error.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	bundle := filepath.Join(dir, "bundle")
	if err := os.Mkdir(bundle, 0o755); err != nil {
		t.Fatal(err)
	}
	const config = `{"annotations":{"dev.ublk-loop.rootfs.image":"/nothing"}}`
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &Wrapper{Maker: Maker{Settings: &Settings{}}, Runtime: "/bin/sh"}
	const want = "rootfs image unavailable: /nothing: not below a directory that the settings allow"
	for _, format := range []string{"json", "text"} {
		path := filepath.Join(dir, format)
		err := w.Run([]string{"--log=" + path, "--log-format", format, "create", "--bundle", bundle, "x"})
		if err == nil || err.Error() != want {
			t.Errorf("error %v", err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var entry map[string]string
		if format == "json" {
			if err := json.Unmarshal(text, &entry); err != nil || entry["level"] != "error" || entry["msg"] != want {
				t.Errorf("the log has %s, error %v", text, err)
			}
		} else if !strings.Contains(string(text), "level=error msg=\""+want) {
			t.Errorf("the log has %s", text)
		}
	}
}

// An error before the call is carried out is in the log, too.
func TestReportOfSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	_, err := ReadSettings(t.TempDir())
	err = Report([]string{"--log", path, "--log-format", "json", "delete", "x"}, err)
	var entry map[string]string
	text, readErr := os.ReadFile(path)
	if readErr == nil {
		readErr = json.Unmarshal(text, &entry)
	}
	if !errors.Is(err, unix.EISDIR) || readErr != nil || entry["msg"] != err.Error() {
		t.Errorf("the log has %q, error %v, of %v", text, readErr, err)
	}
}

// The runtime gets its arguments unchanged, except for a container whose root has to come
// from an image.
func TestRunExecutesTheRuntime(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const image = `"annotations":{"dev.ublk-loop.rootfs.image":"/nothing"}`
	for config, executed := range map[string]bool{
		`{}`:              true,
		`{` + image + `}`: false,
		`{` + image + `,"root":{"path":"` + hooksDir + `/x/rootfs"}}`: true, // a hook has already made this root from the image
		`{"root":{"path":"` + hooksDir + `/x/rootfs"}}`:               true,
		`not JSON`: true, // the runtime reports this error
		`{/* crun accepts this */ ` + image + `}`:      false,
		`{` + image + strings.Repeat(" ", configLimit): false,
	} {
		bundle := t.TempDir()
		if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		arguments := []string{"create", "--bundle", bundle, "x"}
		cmd := exec.Command(self, arguments...)
		cmd.Env = append(os.Environ(), testRole+"=run")
		out, err := cmd.Output()
		if want := strings.Join(arguments, " ") + "\n"; (err == nil && string(out) == want) != executed {
			t.Errorf("%s: %s, error %v", config, out, err)
		}
	}
}

// An annotation of any length makes a short error, which says what is wrong with which annotation.
func TestRewordLong(t *testing.T) {
	_, err := parseRootfs(map[string]string{imageAnnotation: "/image", prefix + "overlay": strings.Repeat("x", 1<<20)})
	text := Reword(err).Error()
	if len(text) > longestError+10 || !strings.HasPrefix(text, "annotation "+prefix+"overlay: ") || !strings.HasSuffix(text, "invalid argument") {
		t.Errorf("%d bytes: %.200s", len(text), text)
	}
}
