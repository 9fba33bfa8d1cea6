package oci

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Wrapper stands in for a runtime.
type Wrapper struct {
	Maker
	// Runtime is the program that is stood in for.
	Runtime string
}

// Run carries out a call of the runtime, by executing it. It returns only if
// that fails, or something before, which has left nothing then.
func (w *Wrapper) Run(args []string) error {
	c := parseCall(args)
	err := Reword(w.run(&c, args))
	c.report(err)
	return err
}

func (w *Wrapper) run(c *call, args []string) error {
	if err := w.checkRuntime(); err != nil {
		return err
	}
	if !c.makesContainer() {
		return w.execute(args)
	}
	b := openBundle(c)
	if b == nil {
		return w.execute(args)
	}
	defer b.close()
	if !b.config.wantsImage() || b.config.hasHookRoot() {
		return w.execute(args)
	}
	return fmt.Errorf("rootfs image unavailable: %w", w.start(b, args))
}

// checkRuntime refuses this program itself, which would go on for ever, and
// what cannot be executed: that is better known before anything is done.
func (w *Wrapper) checkRuntime() error {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return err
	}
	other, err := os.Stat(w.Runtime)
	if err != nil {
		return fmt.Errorf("runtime: %w", err)
	}
	if os.SameFile(self, other) {
		return fmt.Errorf("runtime %s: this program itself: %w", w.Runtime, unix.EINVAL)
	}
	if err := unix.Access(w.Runtime, unix.X_OK); err != nil {
		return fmt.Errorf("runtime %s: %w", w.Runtime, err)
	}
	return nil
}

// execute replaces this program by the runtime. All that is open here closes
// by that, and all that the caller has opened stays.
func (w *Wrapper) execute(args []string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := keepDeathSignal()
	if err == nil {
		err = unix.Exec(w.Runtime, append([]string{w.Runtime}, args...), os.Environ())
	}
	return fmt.Errorf("execute %s: %w", w.Runtime, err)
}

// start makes a container's root directory, and executes the runtime in its
// namespace.
func (w *Wrapper) start(b *bundle, args []string) error {
	w.Requester.Owner = &b.owner
	_, err := w.makeRoot(b.config.Annotations, func() error {
		if err := b.setRoot(rootPlace); err != nil {
			return err
		}
		return errors.Join(w.execute(args), b.restore())
	})
	return err
}
