package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// Hooks are called by an engine in a container's life, if this program does not stand in
// for the runtime.
//
//	precreate: attach and mount, visible to all -> the runtime makes the container,
//	whose own mount keeps the device -> poststart: unmount -> poststop: remove an
//	empty directory
//
// If a container fails to start, poststop removes its mount. Some runtimes do not call
// poststop then, so that Sweep removes the mount. The hooks keep no other state.
type Hooks struct {
	Maker
	// Program is the absolute path of this program, which the runtime calls.
	Program string
}

// configLimit is the maximum size of a configuration, in bytes.
const configLimit = 64 << 20

// readConfig reads a configuration. It returns EFBIG above configLimit, because a sparse
// file can be huge at no cost.
func readConfig(in io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(in, configLimit+1))
	if err == nil && len(text) > configLimit {
		err = unix.EFBIG
	}
	return text, err
}

// ReadHookInput reads the input of a hook to its end. It returns EFBIG if the input is
// larger than any configuration.
func ReadHookInput(in io.Reader) ([]byte, error) {
	text, err := readConfig(in)
	if err == nil {
		return text, nil
	}
	_, _ = io.Copy(io.Discard, in)
	return nil, fmt.Errorf("read the input: %w", err)
}

// Precreate reads a container's configuration and writes it again, with a root from an
// image if the configuration asks for one. If it fails, it leaves no mount and no device,
// and has written nothing or only a part.
func (h *Hooks) Precreate(in io.Reader, out io.Writer) error { return Reword(h.precreate(in, out)) }

func (h *Hooks) precreate(in io.Reader, out io.Writer) error {
	text, err := readConfig(in)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	c, err := parseConfig(text)
	if err != nil {
		return err
	}
	if !c.wantsImage() {
		_, err = out.Write(text)
		return err
	}
	err = h.sweep()
	if err == nil {
		err = h.supply(text, c, out)
	}
	if err != nil {
		return fmt.Errorf("rootfs image unavailable: %w", err)
	}
	return nil
}

// sweep removes old mounts before the attach, because one of them may use the image. It removes none without a
// server: the unmount of a device that waits for one would wait too, and nothing interrupts that. It returns an
// error if the server does not answer in time.
func (h *Hooks) sweep() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), h.Settings.AttachTimeout, errTimeout)
	defer cancel()
	server, err := client.New(h.Settings.Socket).Status(ctx)
	if err == nil && len(server.Unrecovered) == 0 {
		_ = Sweep(h.Settings.SweepAfter)
	}
	if errors.Is(err, errTimeout) {
		return err
	}
	return nil // the attach reports other errors
}

// supply mounts a root directory where the runtime finds it.
func (h *Hooks) supply(text []byte, c *config, out io.Writer) error {
	if err := c.checkMountNamespace(); err != nil {
		return err
	}
	if err := c.checkMappedRoot("."); err != nil {
		return err
	}
	pass, err := c.passage()
	if err != nil {
		return err
	}
	var tree *os.File
	var root *readyRoot
	a, err := h.makeRoot(c.Annotations, func(ready *readyRoot) error {
		var err error
		root = ready
		tree, err = openTree()
		return err
	})
	if err != nil {
		return err
	}
	// The name's time is the time of the mount, however long the attach took.
	name, err := mountName()
	if err == nil {
		err = placeTree(tree, name, pass)
	}
	_ = tree.Close() // a placed mount stays, another one ends
	if err == nil {
		err = h.tell(text, name, root, out)
		if err != nil {
			err = errors.Join(err, removeMount(name))
		}
	}
	if err != nil {
		a.end()
		return err
	}
	a.Close()
	return nil
}

// tell writes the configuration with the mount as its root.
func (h *Hooks) tell(text []byte, name string, root *readyRoot, out io.Writer) error {
	if !utf8.ValidString(h.Program) {
		return fmt.Errorf("program %q: not UTF-8, so that JSON cannot name it: %w", h.Program, unix.EINVAL)
	}
	text, err := editConfig(text, func(c object) error {
		if err := root.tell(c, hookMountPath(name)); err != nil {
			return err
		}
		// The hooks have no timeout. With one, crun waits for SIGCHLD of the hook, misses it if
		// the container ends at the same time, and fails when the timeout is over.
		for _, moment := range []string{"poststart", "poststop"} {
			args := []string{"ublk-loop", "hook", moment, name}
			if err := c.addHook(moment, hook{Path: h.Program, Args: args}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("change the configuration: %w", err)
	}
	_, err = out.Write(text)
	return err
}

// Poststart unmounts the mount with a name that Precreate gave. The container has its own
// mount then. Poststart reads the container's state from in. It returns an error that
// wraps EINVAL for any other name.
func Poststart(name string, in io.Reader) error {
	if err := checkName(name); err != nil {
		return err
	}
	var state struct {
		PID int `json:"pid"`
	}
	err := json.NewDecoder(io.LimitReader(in, configLimit)).Decode(&state)
	if err == nil {
		err = started(name, state.PID)
	}
	if err != nil {
		err = fmt.Errorf("record that the container has started: %w", err)
	}
	return errors.Join(err, leaveMount(name))
}

// Poststop removes the mount with a name that Precreate gave, and its directory. It
// succeeds if they are already gone. It returns an error that wraps EINVAL for any other
// name.
func Poststop(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return removeMount(name)
}

func checkName(name string) error {
	if _, ours := mountAge(name); !ours {
		return fmt.Errorf("mount %q: not a mount of a hook: %w", name, unix.EINVAL)
	}
	return nil
}

// parallelUnmounts is the number of mounts that Sweep unmounts at the same time, each with a child.
const parallelUnmounts = 16

// Sweep removes the mounts of Precreate that are older than age, because their containers
// have failed to start. It also removes the directories of containers that no longer run.
// It tries all, each for itself, and returns the first error.
func Sweep(age time.Duration) error {
	entries, err := os.ReadDir(hooksDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ended, turns := make(chan error), make(chan struct{}, parallelUnmounts)
	n := 0
	for _, e := range entries {
		old, ours := mountAge(e.Name())
		if !ours || old < age {
			continue
		}
		remove := removeMount
		if runs(e.Name()) {
			remove = leaveMount
		}
		n++
		go func() { // received below
			turns <- struct{}{}
			err := remove(e.Name())
			<-turns
			ended <- err
		}()
	}
	var first error
	for range n {
		if err := <-ended; first == nil {
			first = err
		}
	}
	return first
}
