package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// fromImageVariable names a wrapper. If it is set, this program is a runtime that gives each
// container its root directory from an image, and runs no tests. imagesVariable names the
// directory of the images.
const (
	fromImageVariable = "UBLK_LOOP_TEST_FROM_IMAGE"
	imagesVariable    = "UBLK_LOOP_TEST_IMAGES"
)

// fromImage returns the path of a runtime for suites of others, which know nothing of
// annotations. The runtime makes an image of the container's root directory, and calls the
// wrapper.
func (w *wrapped) fromImage() string {
	w.Helper()
	self, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	path := filepath.Join(w.TempDir(), "from-image")
	w.write(path, fmt.Sprintf("#!/bin/sh\nexec env %s=%s %s=%s %s \"$@\"\n", fromImageVariable, w.wrapper, imagesVariable, w.images, self), 0o755)
	return path
}

// runFromImage carries out a call of the runtime that fromImage returns.
func runFromImage(wrapper string, args []string) error {
	if slices.Contains(args, "create") || slices.Contains(args, "run") {
		// Without a configuration or a root directory, the runtime itself must fail.
		if err := makeImage(bundleOf(args)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	environment := slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, fromImageVariable+"=") || strings.HasPrefix(s, imagesVariable+"=")
	})
	return unix.Exec(wrapper, append([]string{wrapper}, args...), environment)
}

// bundleOf returns the bundle that the arguments of a call name.
func bundleOf(args []string) string {
	for i, arg := range args[:len(args)-1] {
		if arg == "--bundle" || arg == "-b" {
			return args[i+1]
		}
	}
	return "."
}

// makeImage makes an image of a bundle's root directory, and asks for it with annotations.
func makeImage(bundle string) error {
	config, tree, err := originalConfig(bundle)
	if err != nil {
		return err
	}
	image, err := os.CreateTemp(os.Getenv(imagesVariable), "root")
	if err != nil {
		return err
	}
	if err := image.Truncate(64 << 20); err != nil {
		return err
	}
	annotations, _ := config["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
	}
	annotations["dev.ublk-loop.rootfs.image"] = image.Name()
	annotations["dev.ublk-loop.rootfs.options"] = "rw"
	config["annotations"] = annotations
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	// The image gets the new configuration too, because runtimetest reads it there.
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(tree, &st); err != nil {
		return err
	}
	owner := fmt.Sprintf("root_owner=%d:%d", st.Uid, st.Gid)
	out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-O", "^resize_inode,^has_journal", "-E", owner, "-d", tree, image.Name()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return image.Close()
}

// originalConfig returns the configuration of a bundle without the changes of an earlier call, and its root
// directory. The wrapper replaces the directory in it, so that a file keeps it.
func originalConfig(bundle string) (config map[string]any, tree string, err error) {
	kept := filepath.Join(bundle, "root.before")
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, "", err
	}
	config = map[string]any{}
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, "", err
	}
	root, _ := config["root"].(map[string]any)
	path := fmt.Sprint(root["path"])
	if strings.HasPrefix(path, placesMount) {
		before, err := os.ReadFile(kept)
		if err != nil {
			return nil, "", err
		}
		path = string(before)
		root["path"] = path
	}
	if tree = path; !filepath.IsAbs(path) {
		tree = filepath.Join(bundle, path)
	}
	if _, err := os.Stat(tree); err != nil {
		return nil, "", err
	}
	return config, tree, os.WriteFile(kept, []byte(path), 0o644)
}
