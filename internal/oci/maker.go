package oci

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Maker makes root directories of containers.
type Maker struct {
	Settings *Settings
	// Requester is for whom.
	Requester Requester
}

// makeRoot makes the root directory that annotations ask for, at rootPlace in a
// mount namespace of its own, and calls a function there. It returns the device,
// which goes with its lease unless it is still mounted then. A failure, the
// function's too, leaves nothing.
func (m *Maker) makeRoot(annotations map[string]string, use func() error) (*attached, error) {
	r, err := parseRootfs(annotations)
	if err != nil {
		return nil, err
	}
	if err := m.Settings.checkOverlay(r.overlay); err != nil {
		return nil, err
	}
	image, err := m.Settings.openImage(r.image, &r.options, m.Requester)
	if err != nil {
		return nil, err
	}
	defer func() { _ = image.Close() }()
	a, err := m.attach(image, r)
	if err != nil {
		return nil, err
	}
	if err = makePlaces(); err == nil {
		err = inNamespace(func() error {
			err := m.mountAll(r, a.Device.Device, a.fs)
			a.Release() // the mount has it
			if err != nil {
				return fmt.Errorf("%s: %w", r.image, err)
			}
			return use()
		})
	}
	if err != nil {
		a.end()
		return nil, err
	}
	return a, nil
}

// inNamespace calls a function on a thread with a mount namespace of its own. If
// the function executes a program, it is the program's. How mounts of the
// caller's namespace reach each other stays: a container may want that of its
// volumes.
func inNamespace(call func() error) error {
	result := make(chan error)
	go func() {
		// Never unlocked: the thread ends with this function, and the
		// namespace with the thread.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err != nil {
			result <- fmt.Errorf("make a mount namespace: %w", err)
			return
		}
		err = call()
		unmountPlaces()
		result <- err
	}()
	return <-result
}
