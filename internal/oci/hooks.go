package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Hooks are what an engine calls in a container's life, where the runtime is not
// stood in for.
//
//	precreate: attach and mount, for all to see -> the runtime makes the container,
//	whose own mount keeps the device -> poststart: unmount -> poststop: remove an
//	empty directory
//
// The mount of a container that never started goes with poststop, which not every
// runtime calls then, or when it is swept. Nothing else is kept.
type Hooks struct {
	Maker
	// Program is this program, for the runtime to call: an absolute path.
	Program string
}

// configLimit bounds a configuration, in bytes.
const configLimit = 64 << 20

// readConfig reads a configuration. It returns EFBIG above configLimit, because
// the size of a sparse file costs nothing.
func readConfig(in io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(in, configLimit+1))
	if err == nil && len(text) > configLimit {
		err = unix.EFBIG
	}
	return text, err
}

// hookTimeout is how long a runtime waits for a hook, in seconds.
const hookTimeout = 30

// Precreate reads a container's configuration and writes it anew, with a root from
// an image where that is asked for. A failure leaves nothing, and has written
// nothing or a part.
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
	// Before the attach: what is swept may be what has the image.
	_ = Sweep(h.Settings.SweepAfter)
	if err := h.supply(text, c, out); err != nil {
		return fmt.Errorf("rootfs image unavailable: %w", err)
	}
	return nil
}

// supply mounts a root directory where the runtime finds it.
func (h *Hooks) supply(text []byte, c *config, out io.Writer) error {
	pass, err := c.passage()
	if err != nil {
		return err
	}
	var tree *os.File
	a, err := h.makeRoot(c.Annotations, func() error {
		var err error
		tree, err = openTree()
		return err
	})
	if err != nil {
		return err
	}
	// The name's time is that of the mount, however long the device took.
	name, err := mountName()
	if err == nil {
		err = placeTree(tree, name, pass)
	}
	_ = tree.Close() // the mount is placed, or ends
	if err == nil {
		err = h.tell(text, name, out)
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

// tell writes the configuration with the mount of a name.
func (h *Hooks) tell(text []byte, name string, out io.Writer) error {
	text, err := editConfig(text, func(c object) error {
		if err := c.setRoot(hookMountPath(name)); err != nil {
			return err
		}
		for _, moment := range []string{"poststart", "poststop"} {
			args := []string{"ublk-loop", "hook", moment, name}
			if err := c.addHook(moment, hook{Path: h.Program, Args: args, Timeout: hookTimeout}); err != nil {
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

// Poststart unmounts what Precreate has given a name; the container has its own
// mount. The container's state is read. It returns an error that wraps EINVAL for a
// name that Precreate does not give.
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
		err = fmt.Errorf("note down that the container has started: %w", err)
	}
	return errors.Join(err, leaveMount(name))
}

// Poststop removes what there is of a mount that Precreate has given a name. One
// that is gone is success. It returns an error that wraps EINVAL for a name that
// Precreate does not give.
func Poststop(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return removeMount(name)
}

func checkName(name string) error {
	if _, ours := mountAge(name); !ours {
		return fmt.Errorf("mount %q: not of a hook: %w", name, unix.EINVAL)
	}
	return nil
}

// Sweep unmounts the mounts of Precreate that have an age, and so are of containers
// that have failed to start, and removes what is left of those that run no more. It
// returns the first error, after having tried all.
func Sweep(age time.Duration) error {
	entries, err := os.ReadDir(hooksDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var first error
	for _, e := range entries {
		old, ours := mountAge(e.Name())
		if !ours || old < age {
			continue
		}
		remove := removeMount
		if runs(e.Name()) {
			remove = leaveMount
		}
		if err := remove(e.Name()); first == nil {
			first = err
		}
	}
	return first
}
