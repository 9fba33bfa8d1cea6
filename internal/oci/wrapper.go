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
	// Runtime is the program that Wrapper stands in for.
	Runtime string
}

// Run carries out a call of the runtime, and executes the runtime. It returns only if that
// fails, and leaves nothing behind in that case.
func (w *Wrapper) Run(args []string) error {
	c := parseCall(args)
	return c.report(w.run(&c, args))
}

func (w *Wrapper) run(c *call, args []string) error {
	if err := w.checkRuntime(); err != nil {
		return err
	}
	if !c.makesContainer() {
		return w.execute(args)
	}
	b, err := openBundle(c)
	if err != nil {
		return err
	}
	if b == nil {
		return w.execute(args)
	}
	defer b.close()
	if !b.config.wantsImage() || b.config.hasHookRoot() {
		return w.execute(args)
	}
	return fmt.Errorf("rootfs image unavailable: %w", w.start(c, b, args))
}

// checkRuntime refuses this program itself, because it would execute itself for ever. It
// also refuses a program that cannot be executed, so that this error comes before any
// mount.
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

// execute replaces this program with the runtime. The exec closes the files that this
// program has opened, and keeps those of the caller.
func (w *Wrapper) execute(args []string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := keepDeathSignal()
	if err == nil {
		err = unix.Exec(w.Runtime, append([]string{w.Runtime}, args...), os.Environ())
	}
	return fmt.Errorf("execute %s: %w", w.Runtime, err)
}

// start makes a container's root directory, and executes the runtime in its namespace.
func (w *Wrapper) start(c *call, b *bundle, args []string) error {
	if err := b.config.checkMountNamespace(); err != nil {
		return err
	}
	if err := b.config.checkMappedRoot(c.bundle); err != nil {
		return err
	}
	w.Requester.Owners = b.owners
	_, err := w.makeRoot(b.config.Annotations, func(root *readyRoot) error {
		if err := b.edit(func(c object) error { return root.tell(c, rootPlace) }); err != nil {
			return err
		}
		return errors.Join(w.execute(args), b.restore())
	})
	return err
}
