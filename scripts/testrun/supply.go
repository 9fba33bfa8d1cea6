package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// supplies are the kernels, programs and test binaries that jobs need. Each is fetched or
// built once, when the first job asks for it, at the same time as the others. If that
// fails, the jobs that asked for it fail.
type supplies struct {
	ctx  context.Context
	top  string
	work string // a directory for this run only
	log  io.Writer

	mu    sync.Mutex // protects the fields below
	items map[string]*supply
	now   map[string]bool // the names of those that are being made
}

type supply struct {
	once sync.Once
	path string
	err  error
}

func newSupplies(ctx context.Context, top, work string, log io.Writer) *supplies {
	return &supplies{ctx: ctx, top: top, work: work, log: log, items: map[string]*supply{}, now: map[string]bool{}}
}

// get returns a supply. If it does not exist, get makes it, which may take minutes; other
// callers wait for the same result.
func (s *supplies) get(name string, make func() (string, error)) (string, error) {
	s.mu.Lock()
	item := s.items[name]
	if item == nil {
		item = &supply{}
		s.items[name] = item
	}
	s.mu.Unlock()
	item.once.Do(func() {
		s.making(name, true)
		defer s.making(name, false)
		if item.path, item.err = make(); item.err != nil {
			item.err = fmt.Errorf("%s: %w", name, item.err)
		}
	})
	return item.path, item.err
}

// made returns the path of a supply, or "" if it was not made.
func (s *supplies) made(name string) string {
	s.mu.Lock()
	item := s.items[name]
	s.mu.Unlock()
	if item == nil {
		return ""
	}
	item.once.Do(func() {}) // waits for the one who makes it
	return item.path
}

func (s *supplies) making(name string, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now[name] = is; !is {
		delete(s.now, name)
	}
}

// underWay returns the names of the supplies that are being fetched or built.
func (s *supplies) underWay() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.now))
}

// run runs a program in a directory of the tree. It returns the standard output, or an
// error with the standard error.
func (s *supplies) run(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(s.ctx, name, args...)
	cmd.Dir, cmd.Env = filepath.Join(s.top, dir), append(os.Environ(), env...)
	inGroup(cmd)
	var out, complaints bytes.Buffer
	cmd.Stdout = &out
	cmd.Stderr = io.MultiWriter(&complaints, s.log)
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(complaints.String()), "\n")
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(name), err, lines[len(lines)-1])
	}
	return strings.TrimSpace(out.String()), nil
}

func (s *supplies) script(name string, args ...string) (string, error) {
	return s.run(".", nil, filepath.Join(s.top, "scripts", name), args...)
}

// tools installs the programs that virtual machines and tests use, and returns their
// directory.
func (s *supplies) tools() (string, error) {
	return s.get("tools", func() (string, error) { return s.script("setup.sh") })
}

// kernel fetches or builds a kernel, and builds the memory disk of its machines.
func (s *supplies) kernel(name string) (string, error) {
	return s.get("kernel "+name, func() (string, error) {
		if _, err := s.tools(); err != nil {
			return "", err
		}
		dir, err := s.script("vm-kernel.sh", name)
		if err != nil {
			return "", err
		}
		_, err = s.script("vm-initramfs.sh", dir)
		return dir, err
	})
}

// engines returns the image with the container engines.
func (s *supplies) engines() (string, error) {
	return s.get("container engines", func() (string, error) {
		if _, err := s.tools(); err != nil {
			return "", err
		}
		return s.script("vm-engines.sh")
	})
}

// suites returns the image with test suites of others.
func (s *supplies) suites() (string, error) {
	return s.get("test suites", func() (string, error) {
		if _, err := s.tools(); err != nil {
			return "", err
		}
		return s.script("vm-suites.sh")
	})
}

// containerd returns a directory with the containerd of a Debian suite.
func (s *supplies) containerd(suite string) (string, error) {
	return s.get("containerd of "+suite, func() (string, error) {
		if _, err := s.tools(); err != nil {
			return "", err
		}
		return s.script("vm-containerd.sh", suite)
	})
}

// utilLinux returns a directory with util-linux's tests of losetup.
func (s *supplies) utilLinux() (string, error) {
	return s.get("tests of util-linux", func() (string, error) { return s.script("vm-utillinux.sh", "trixie") })
}
