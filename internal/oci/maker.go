package oci

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Maker makes root directories of containers.
type Maker struct {
	Settings *Settings
	// Requester is who asks for images.
	Requester Requester
}

// readyRoot is a root directory that is mounted for its container.
type readyRoot struct {
	device uint64 // number of the device, which no other device has before it is gone
	limits []ioLimit
}

// tell writes the root directory at a path into the container's configuration.
func (r *readyRoot) tell(c object, path string) error {
	if err := c.setRoot(path); err != nil {
		return err
	}
	return c.limitIO(r.device, r.limits)
}

// makeRoot makes the root directory that the annotations ask for, at rootPlace in a new
// mount namespace, and calls a function there. It returns the device. The server removes
// the device after the end of the lease, when it is not mounted. If makeRoot or the
// function fails, nothing is left.
func (m *Maker) makeRoot(annotations map[string]string, use func(*readyRoot) error) (*attached, error) {
	r, err := parseRootfs(annotations)
	if err != nil {
		return nil, err
	}
	if err := m.Settings.checkOverlay(r.overlay); err != nil {
		return nil, err
	}
	image, err := m.Settings.OpenImage(r.image, &r.disk, m.Requester)
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
			a.Release() // the mount keeps the device in use
			if err != nil {
				return fmt.Errorf("%s: %w", r.image, err)
			}
			return use(&readyRoot{a.number, r.limits})
		})
	}
	if err != nil {
		a.end()
		return nil, err
	}
	return a, nil
}

// inNamespace calls a function on a thread with a new mount namespace. If the function
// executes a program, the program gets the namespace. The propagation of the caller's
// mounts stays, because a container may need it for its volumes.
func inNamespace(call func() error) error {
	result := make(chan error)
	go func() {
		// Without an unlock, the thread ends with this function, and the namespace with
		// the thread.
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
