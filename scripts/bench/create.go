package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Start holds the durations of starts of containers by a stand-in for a runtime.
type Start struct {
	Path   string     `json:"path"`
	AtOnce int        `json:"at_once"` // starts in parallel
	Times  int        `json:"times"`
	Ns     Percentile `json:"ns"`
}

// findStart returns the starts by a path, or nil if they were not measured.
func (r *Report) findStart(path string, atOnce int) *Start {
	i := slices.IndexFunc(r.Starts, func(s Start) bool { return s.Path == path && s.AtOnce == atOnce })
	if i < 0 {
		return nil
	}
	return &r.Starts[i]
}

// These are the ways to start a container.
const (
	createPath = "ublk-runc create, with an image"
	passPath   = "ublk-runc create, without"
	mountPath  = "unshare, mount -o loop"
)

// settingsPath is the path of the settings of ublk-runc.
const settingsPath = "/etc/ublk-loop/oci.toml"

// container is a place for the bundles and programs of starts.
type container struct {
	dir string
	end *os.File // ends a container for each line that is written to it
}

// creates measures how long it takes until a stand-in for a container runtime has been started and
// has ended: with a root from an image, without, and with the kernel's loop driver. Its container, a
// process with the mounts, stays until the next start. The ways take turns.
func (b *bench) creates() (err error) {
	c, remove, err := newContainer(b.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	server, err := startServe(b.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	for _, many := range []struct{ atOnce, rounds int }{{1, b.times}, {20, max(b.times/10, 2)}} {
		if err := b.createsAtOnce(c, many.atOnce, many.rounds); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) createsAtOnce(c *container, atOnce, rounds int) error {
	ways := []struct {
		name string
		args []string
	}{
		{createPath, []string{c.path("ublk-runc"), "create", "--bundle", c.path("with"), "c"}},
		{passPath, []string{c.path("ublk-runc"), "create", "--bundle", c.path("without"), "c"}},
		{mountPath, []string{"unshare", "-m", "sh", "-c", `mount -o loop,ro "$1" "$2" && exec "$3"`, "sh", c.path("image"), c.path("place"), c.path("runtime")}},
	}
	samples := make([][]time.Duration, len(ways))
	for round := range rounds + 1 {
		for i, way := range ways {
			sample, err := timeAtOnce(way.args, atOnce)
			if err = errors.Join(err, c.endAll(atOnce)); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			if round > 0 { // the first round reads programs
				samples[i] = append(samples[i], sample...)
			}
		}
	}
	for i, way := range ways {
		b.report.Starts = append(b.report.Starts, Start{way.name, atOnce, len(samples[i]), percentilesOf(samples[i])})
	}
	return nil
}

// timeAtOnce runs a command a number of times in parallel, and returns how long each took.
func timeAtOnce(args []string, n int) ([]time.Duration, error) {
	times, errs := make([]time.Duration, n), make([]error, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			start := time.Now()
			errs[i] = command(args[0], args[1:]...)
			times[i] = time.Since(start)
		})
	}
	running.Wait()
	return times, errors.Join(errs...)
}

// endAll ends n containers, and waits until their devices are gone. Otherwise the removal would
// count for the next start.
func (c *container) endAll(n int) error {
	if _, err := c.end.WriteString(strings.Repeat("\n", n)); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		disks, err := filepath.Glob("/dev/ublk[bc]*[0-9]")
		if err != nil || len(disks) == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%q stay", disks)
		}
	}
}

// newContainer makes what starts need, in memory.
func newContainer(bin string) (c *container, remove func() error, err error) {
	if _, err := os.Stat(settingsPath); err == nil {
		return nil, nil, fmt.Errorf("%s: %w", settingsPath, os.ErrExist)
	}
	dir, err := os.MkdirTemp("", "ublk-loop-bench")
	if err != nil {
		return nil, nil, err
	}
	if err := command("mount", "-t", "tmpfs", "none", dir); err != nil {
		return nil, nil, errors.Join(err, os.Remove(dir))
	}
	c = &container{dir: dir}
	remove = func() error {
		return errors.Join(c.end.Close(), os.Remove(settingsPath), command("umount", dir), os.Remove(dir))
	}
	if err := c.fill(bin); err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return c, remove, nil
}

func (c *container) path(name string) string { return filepath.Join(c.dir, name) }

// fill makes the settings, the runtime, the image and the bundles.
func (c *container) fill(bin string) error {
	program, err := exec.LookPath(bin)
	if err != nil {
		return err
	}
	if err := unix.Mkfifo(c.path("end"), 0o600); err != nil {
		return err
	}
	if c.end, err = os.OpenFile(c.path("end"), os.O_RDWR, 0); err != nil {
		return err
	}
	runtime := fmt.Sprintf("#!/bin/sh\nexec >/dev/null 2>&1\nread -r line <%s &\nexit 0\n", c.path("end"))
	settings := fmt.Sprintf("allowed_images = [%q]\n[runtimes]\nrunc = %q\n", c.dir, c.path("runtime"))
	return errors.Join(
		os.MkdirAll(filepath.Dir(settingsPath), 0o755), os.WriteFile(settingsPath, []byte(settings), 0o644),
		os.Mkdir(c.path("place"), 0o755), os.Mkdir(c.path("content"), 0o755),
		os.WriteFile(c.path("content/file"), []byte("x"), 0o600), os.WriteFile(c.path("runtime"), []byte(runtime), 0o755),
		os.Symlink(program, c.path("ublk-runc")),
		command("mke2fs", "-q", "-t", "ext4", "-d", c.path("content"), c.path("image"), "64M"),
		c.makeBundle("with", map[string]string{"image": c.path("image")}), c.makeBundle("without", nil),
	)
}

// makeBundle makes the bundle of a container.
func (c *container) makeBundle(name string, annotations map[string]string) error {
	var list []string
	for key, value := range annotations {
		list = append(list, fmt.Sprintf("%q: %q", "dev.ublk-loop.rootfs."+key, value))
	}
	config := fmt.Sprintf(`{"ociVersion": "1.2.0", "process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}, "root": {"path": "rootfs"},
		"annotations": {%s}, "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}}`, strings.Join(list, ", "))
	return errors.Join(os.MkdirAll(c.path(name+"/rootfs"), 0o755), os.WriteFile(c.path(name+"/config.json"), []byte(config), 0o644))
}
