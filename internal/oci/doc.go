// Package oci gives a container a root file system from an image file. It stands in for
// an OCI runtime (runc, crun): it makes the root directory if the container's bundle asks
// for one, and executes the runtime.
//
//	parse the call -> attach, with a lease -> new mount namespace -> mount
//	-> rewrite config.json -> end the lease -> execute the runtime
//
// The package keeps no state. The mount is in a namespace that only the container uses.
// The device belongs first to the connection, and then to the mount. The namespace ends
// with the container's last process, whatever ends it. The mount ends with the namespace,
// and the device with the mount. Calls that make no container, and bundles that ask for
// no image, reach the runtime unchanged.
//
// Hooks do the same for engines that call hooks. They make the mount where the runtime
// finds it, until the container has a mount of its own.
//
// A bundle asks by annotations. Anyone who may start a container may write annotations.
// Therefore images must be below directories that the settings name, and mount options
// must be on a list.
//
// Error messages avoid words that a container engine would take for another failure:
// podman searches a runtime's messages for some errors of the kernel.
package oci
